"""The subscriptions of a topic."""

from collections.abc import Iterator
from typing import Optional
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def client(service: str):
    """Returns a client whose timeouts suit a person who waits for the answer."""
    return boto3.client(service, config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 3}))


def pages(service: str, operation: str, items: str, **asked) -> Iterator[dict]:
    """Yields the items of all pages of a listing."""
    for page in client(service).get_paginator(operation).paginate(**asked):
        yield from page[items]


def subscriptions(topic: str) -> list[dict]:
    """Returns a topic's subscriptions, without those that ended.

    A subscription that ended stays listed for some days, with "Deleted" for its ARN.
    """
    listed = pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=topic)
    return [one for one in listed if one["SubscriptionArn"] != "Deleted"]


def attributes(subscription: dict) -> Optional[dict[str, str]]:
    """Returns the attributes, or None while the subscription waits for confirmation.

    SNS lists such a subscription as PendingConfirmation. ministack lists it with its ARN, and only
    the attributes say that it waits.
    """
    arn = subscription["SubscriptionArn"]
    if not arn.startswith("arn:"):
        return None
    found = client("sns").get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    return None if found.get("PendingConfirmation") == "true" else found


def confirmed(subscription: dict) -> bool:
    """Returns whether a subscription gets messages. Returns True if that cannot be seen."""
    try:
        return attributes(subscription) is not None
    except ClientError:
        return True


def described(subscription: dict) -> str:
    """Returns the protocol and the endpoint."""
    return f"{subscription['Protocol']} {address(subscription)}"


def address(subscription: dict) -> str:
    """Returns the endpoint. Of a URL, returns only the host: what follows is often a password."""
    if subscription["Protocol"] not in ("http", "https"):
        return subscription["Endpoint"]
    url = urlsplit(subscription["Endpoint"])
    return f"{url.scheme}://{url.hostname}/..."
