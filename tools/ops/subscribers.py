"""Reads the subscriptions of a topic."""

from collections.abc import Iterator
from typing import Optional
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def client(service: str):
    """Returns a client with timeouts for a user who waits at a terminal."""
    return boto3.client(service, config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 3}))


def pages(service: str, operation: str, items: str, **asked) -> Iterator[dict]:
    """Yields the items of all pages of a listing."""
    for page in client(service).get_paginator(operation).paginate(**asked):
        yield from page[items]


def subscriptions(topic: str) -> list[dict]:
    """Returns a topic's subscriptions, except deleted ones.

    SNS lists a deleted subscription for some days, with "Deleted" as its ARN.
    """
    listed = pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=topic)
    return [one for one in listed if one["SubscriptionArn"] != "Deleted"]


def attributes(subscription: dict) -> Optional[dict[str, str]]:
    """Returns the attributes, or None if the subscription is not confirmed yet.

    SNS lists an unconfirmed subscription with the ARN PendingConfirmation. ministack lists its real
    ARN, and only the attributes show that it is not confirmed.
    """
    arn = subscription["SubscriptionArn"]
    if not arn.startswith("arn:"):
        return None
    found = client("sns").get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    return None if found.get("PendingConfirmation") == "true" else found


def confirmed(subscription: dict) -> bool:
    """Returns whether a subscription is confirmed, or True if the caller may not see that."""
    try:
        return attributes(subscription) is not None
    except ClientError:
        return True


def described(subscription: dict) -> str:
    """Returns the protocol and the endpoint."""
    return f"{subscription['Protocol']} {address(subscription)}"


def address(subscription: dict) -> str:
    """Returns the endpoint. Of a URL, only the host, because its path may be a password."""
    if subscription["Protocol"] not in ("http", "https"):
        return subscription["Endpoint"]
    url = urlsplit(subscription["Endpoint"])
    return f"{url.scheme}://{url.hostname}/..."
