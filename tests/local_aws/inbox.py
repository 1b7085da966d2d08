"""A queue that is subscribed to the topic, as anybody's may be, and the alerts that arrive in it."""

import json
import time
from dataclasses import dataclass
from uuid import uuid4

import boto3


@dataclass
class Alert:
    """One message as SNS delivered it."""

    message_id: str
    subject: str
    event: dict  # the body for programs: a CloudEvent


class Inbox:
    """Subscribed from its creation on."""

    def __init__(self, topic_arn):
        self._sqs = boto3.client("sqs")
        self._url = self._sqs.create_queue(QueueName=f"alerts-{uuid4()}")["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": attributes["QueueArn"],
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
                }
            ],
        }
        self._sqs.set_queue_attributes(QueueUrl=self._url, Attributes={"Policy": json.dumps(policy)})
        boto3.client("sns").subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=attributes["QueueArn"])

    def receive(self, wait=0):
        """The alerts that are there, or come within `wait` seconds. Each is handed out once."""
        received = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        alerts = []
        for message in received.get("Messages", []):
            envelope = json.loads(message["Body"])
            alerts.append(Alert(envelope["MessageId"], envelope.get("Subject"), json.loads(envelope["Message"])))
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return alerts

    def collect(self, expected, patience=10, silence=1):
        """The alerts that come until `expected` are there, and those of the `silence` after, in which none should come."""
        alerts = []
        deadline = time.monotonic() + patience
        while len(alerts) < expected and time.monotonic() < deadline:
            alerts += self.receive(wait=1)
        deadline = time.monotonic() + silence
        while time.monotonic() < deadline:
            alerts += self.receive(wait=1)
        return alerts
