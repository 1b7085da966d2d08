"""Temporary faults of the deployed stack and of this process's session with AWS."""

import json
import os
from contextlib import contextmanager
from unittest import mock
from uuid import uuid4

import boto3


@contextmanager
def hooked(event, handler):
    """Passes the requests to AWS, or its answers, through `handler` while the context is open."""
    session = boto3.Session()
    session.events.register(event, handler)
    with mock.patch.object(boto3, "DEFAULT_SESSION", session):
        yield


@contextmanager
def without_permission(*denied):
    """Makes this process a user with all permissions except these. ministack enforces the permissions."""
    iam = boto3.client("iam")
    name = f"restricted-{uuid4()}"
    iam.create_user(UserName=name)
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [everything, *denied]}
    iam.put_user_policy(UserName=name, PolicyName="restricted", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    credentials = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    with mock.patch.dict(os.environ, credentials), mock.patch.object(boto3, "DEFAULT_SESSION", None):
        yield


@contextmanager
def refusing(topic_arn):
    """Makes the topic refuse every publish while the context is open."""
    sns = boto3.client("sns")
    policy = sns.get_topic_attributes(TopicArn=topic_arn)["Attributes"]["Policy"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "sns:Publish", "Resource": topic_arn}

    def set_policy(text):
        sns.set_topic_attributes(TopicArn=topic_arn, AttributeName="Policy", AttributeValue=text)

    set_policy(json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    try:
        yield
    finally:
        set_policy(policy)
