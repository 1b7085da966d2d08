"""The calls to AWS that a request made, as the function's log has them."""

import time

import boto3

from ops.request import json_object
from ops.stack import NAME

# The steps of a delivery, each of which is one call, by the member of the line that has its time.
STEPS = {"ClaimTime": "claim", "PaceTime": "slot", "PublishTime": "publish", "CompleteTime": "complete"}


def calls_of(event_id: str, patience: float = 5) -> list[str]:
    """Returns the calls of the request that published an event's alert, in order. Waits for the log."""
    logs = boto3.client("logs")
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{NAME}-webhook")["events"]:
            line = json_object(event["message"]) or {}
            if line.get("eventId") == event_id and line.get("outcome") == "alerted":
                return [name for time_of, name in STEPS.items() if line.get(time_of) is not None]
        time.sleep(0.1)
    return []
