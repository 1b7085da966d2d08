"""Subscribes a queue to a topic, and receives the messages."""

import json
import time
from dataclasses import dataclass
from uuid import uuid4

import boto3

from ops.request import json_object


@dataclass
class Message:
    """A message as SNS delivered it."""

    message_id: str
    subject: str | None  # messages of the lead status stream have none
    text: str  # the body for programs, as it arrived
    event: dict  # the parsed body: a CloudEvent, or empty if the body is not a JSON object
    attributes: dict[str, str]
    group: str | None  # the message group of a FIFO topic
    arrived: float  # in the queue, in seconds since the Unix epoch


class Inbox:
    """A queue that is subscribed to a topic: a FIFO queue for a FIFO topic."""

    def __init__(self, topic_arn: str, filter_policy: dict | None = None):
        self._sqs = boto3.client("sqs")
        name, kind = f"inbox-{uuid4()}", {}
        if topic_arn.endswith(".fifo"):
            name, kind = f"{name}.fifo", {"FifoQueue": "true"}
        self._url = self._sqs.create_queue(QueueName=name, Attributes=kind)["QueueUrl"]
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
        # The doctor requires a dead-letter queue for every subscription. This one stays empty,
        # because the inbox accepts every message.
        dead_letters = f"dead-letters-{name}"
        self._sqs.create_queue(QueueName=dead_letters, Attributes=kind)
        redrive = {"deadLetterTargetArn": attributes["QueueArn"].replace(name, dead_letters)}
        filtered = {"FilterPolicy": json.dumps(filter_policy)} if filter_policy else {}
        wanted = {"RedrivePolicy": json.dumps(redrive), **filtered}
        subscription = {"Protocol": "sqs", "Endpoint": attributes["QueueArn"], "Attributes": wanted}
        subscribed = boto3.client("sns").subscribe(TopicArn=topic_arn, **subscription)
        self._subscription = subscribed["SubscriptionArn"]
        self._dead_letters = self._url.replace(name, dead_letters)

    def close(self) -> None:
        """Ends the subscription, and deletes the queues."""
        boto3.client("sns").unsubscribe(SubscriptionArn=self._subscription)
        for url in (self._url, self._dead_letters):
            self._sqs.delete_queue(QueueUrl=url)

    def receive(self, wait: int = 0) -> list[Message]:
        """Returns the messages that are in the queue or arrive within `wait` seconds, each once."""
        asked = {
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": wait,
            "AttributeNames": ["MessageGroupId", "SentTimestamp"],
        }
        messages = []
        for received in self._sqs.receive_message(QueueUrl=self._url, **asked).get("Messages", []):
            messages.append(_read(received))
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=received["ReceiptHandle"])
        return messages

    def collect(self, expected: int, patience: float = 10, silence: float = 0.2) -> list[Message]:
        """Returns the messages until `expected` have arrived, and those of the `silence` after.

        In the silence, no message should arrive. A short silence is enough: ministack puts a
        message into the queues before it answers the publish.
        """
        messages = []
        deadline = time.monotonic() + patience
        while len(messages) < expected and time.monotonic() < deadline:
            messages += self.receive(wait=1)
        deadline = time.monotonic() + silence
        while time.monotonic() < deadline:
            messages += self.receive()
            time.sleep(0.05)
        return messages + self.receive()


def _read(received):
    envelope = json.loads(received["Body"])
    return Message(
        message_id=envelope["MessageId"],
        subject=envelope.get("Subject"),
        text=envelope["Message"],
        event=json_object(envelope["Message"]) or {},
        attributes={name: attribute["Value"] for name, attribute in envelope.get("MessageAttributes", {}).items()},
        group=received["Attributes"].get("MessageGroupId"),
        arrived=int(received["Attributes"]["SentTimestamp"]) / 1000,
    )
