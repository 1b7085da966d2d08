"""examples/archive, deployed: it keeps every change of the lead status stream in S3."""

import json

import boto3

from examples import Stream, change, deploy, depth, eventually
from local_aws.journey import STAGES


def test_every_change_is_a_line_under_its_day(local_aws):
    stream = Stream()
    stack = deploy("archive", local_aws, StatusTopicArn=stream.arn)
    published = [change("lead_2", number, status, stage) for number, (status, stage) in enumerate(STAGES.items())]
    stream.publish(*published, published[0])
    assert eventually(lambda: depth(stack["QueueUrl"]) == 0)
    s3 = boto3.client("s3")
    kept = {}
    for found in s3.list_objects_v2(Bucket=stack["BucketName"])["Contents"]:
        assert found["Key"].startswith("changes/dt=2024-02-24/")
        text = s3.get_object(Bucket=stack["BucketName"], Key=found["Key"])["Body"].read().decode()
        for line in text.splitlines():
            event = json.loads(line)
            kept[event["id"]] = event
    assert sorted(kept.values(), key=lambda event: event["time"]) == published
