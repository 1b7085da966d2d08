"""examples/lead-lost, deployed: it starts an automation for each lead that is lost."""

import json
import time
from types import SimpleNamespace

import boto3
import pytest

from examples import Endpoint, Stream, change, deploy, eventually
from local_aws.journey import STAGES


@pytest.fixture(scope="module")
def example(local_aws):
    stream, automation = Stream(), Endpoint()
    with automation.serving() as url:
        outputs = deploy("lead-lost", local_aws, StatusTopicArn=stream.arn, AutomationUrl=url)
        yield SimpleNamespace(stream=stream, automation=automation, url=url, outputs=outputs)


def notification(stream, event):
    """Returns the event with which SNS invokes a function."""
    message = {
        "Type": "Notification",
        "MessageId": event["id"],
        "TopicArn": stream.arn,
        "Subject": None,
        "Timestamp": "2024-02-24T10:30:00.000Z",
        "SignatureVersion": "1",
        "Signature": "",
        "SigningCertUrl": "https://sns.us-east-1.amazonaws.com/certificate.pem",
        "UnsubscribeUrl": "https://sns.us-east-1.amazonaws.com/",
        "Message": json.dumps(event),
        "MessageAttributes": {},
    }
    return {"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": stream.arn, "Sns": message}


def test_only_a_lost_lead_starts_the_automation(example):
    changes = [change("lead_1", number, status, stage) for number, (status, stage) in enumerate(STAGES.items())]
    example.stream.publish(*changes)
    assert eventually(example.automation.took)
    # SNS invokes the function once per message, so a wrong call could still follow.
    time.sleep(1)
    [(method, _, key, body, _)] = example.automation.took()
    assert (method, key) == ("POST", "evt_lead_1_7")
    assert (body["action"], body["leadId"], body["newStatus"]) == ("lead_lost", "lead_1", "NOT_INTERESTED")


def test_a_failing_call_is_tried_three_times_with_one_key_and_then_kept(example):
    function, failures = example.outputs["FunctionName"], example.outputs["FailuresUrl"]
    before = len(example.automation.calls())
    # Invoked asynchronously, because the emulator's SNS calls the function directly, without
    # Lambda's retries.
    event = change("lead_3", 1, "NOT_INTERESTED", "closed_lost")
    payload = json.dumps({"Records": [notification(example.stream, event)]})
    for answer in (503, 303):
        example.automation.answers = answer
        boto3.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=payload)
        received = boto3.client("sqs").receive_message(QueueUrl=failures, WaitTimeSeconds=20)
        [kept] = received["Messages"]
        boto3.client("sqs").delete_message(QueueUrl=failures, ReceiptHandle=kept["ReceiptHandle"])
        kept = json.loads(kept["Body"])
        assert json.loads(kept["requestPayload"]["Records"][0]["Sns"]["Message"]) == event
        assert str(answer) in kept["responsePayload"]["errorMessage"]
        # The URL may contain a password.
        assert example.url not in json.dumps(kept)
    assert [key for _, _, key, _, _ in example.automation.calls()[before:]] == ["evt_lead_3_1"] * 6
