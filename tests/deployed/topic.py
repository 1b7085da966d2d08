"""The deployed topic, broken for a while."""

import json
from contextlib import contextmanager

import boto3


@contextmanager
def refusing(topic_arn):
    """Meanwhile, nobody may publish."""
    sns = boto3.client("sns")
    policy = sns.get_topic_attributes(TopicArn=topic_arn)["Attributes"]["Policy"]
    nobody = {"Effect": "Deny", "Principal": "*", "Action": "sns:Publish", "Resource": topic_arn}

    def set_policy(text):
        sns.set_topic_attributes(TopicArn=topic_arn, AttributeName="Policy", AttributeValue=text)

    set_policy(json.dumps({"Version": "2012-10-17", "Statement": [nobody]}))
    try:
        yield
    finally:
        set_policy(policy)
