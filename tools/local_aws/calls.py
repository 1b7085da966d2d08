"""Names the calls to AWS that the functions make, from the record that the local AWS keeps of all calls."""

import json
from datetime import datetime, timezone

import boto3

SDK = "aws-sdk-rust"  # begins the user agent of the functions' calls
MOST = 50  # of the newest calls; a look-up returns no more
# An update of the table, by a word of its expression. The first that fits counts.
UPDATES = {
    "attempts": "claim",
    "publishedAt": "complete",
    "debouncedBy": "debounce",
    "lastError": "release",
    "progress": "end run",
}
# Any other update, by the end of the row's key.
ROWS = {"known": "known lead", "quiet": "debounce lock", "slot": "slot", "reply": "reply", "run": "begin run"}
# A call that always does the same.
CALLS = {"GetItem": "last reply", "BatchGetItem": "known leads", "Query": "pending"}


def calls_since(began: float, api_key: str | None = None) -> list[str]:
    """Returns the calls of the functions since this time (Unix), in their order: at most the newest 50.

    `api_key` is the ARN of the API key's secret. Lists of pending deliveries are left out, because
    the redrive's schedule makes them at any time.
    """
    asked = {"StartTime": datetime.fromtimestamp(began, timezone.utc), "MaxResults": MOST}
    newest_first = boto3.client("cloudtrail").lookup_events(**asked)["Events"]
    calls = [json.loads(one["CloudTrailEvent"]) for one in reversed(newest_first)]
    names = [_name(one, api_key) for one in calls if one["userAgent"].startswith(SDK)]
    return [name for name in names if name != CALLS["Query"]]


def _name(call, api_key):
    """Returns the name of a call by what it does for an alert."""
    asked = call["requestParameters"]
    if call["eventSource"].startswith("sns."):
        return "publish"
    if call["eventName"] == "GetSecretValue":
        return "API key" if asked["SecretId"] == api_key else "signing secret"
    if call["eventName"] != "UpdateItem":
        return CALLS.get(call["eventName"], call["eventName"])
    row = asked["Key"]["deliveryId"]["S"].rpartition("#")[2]
    named = (name for word, name in UPDATES.items() if word in asked["UpdateExpression"])
    return next(named, ROWS.get(row, row))
