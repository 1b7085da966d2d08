"""The commands `pending` and `resend` with the row of an alert of the reconciliation.

tests/deployed/test_resend.py runs `resend` against a deployed stack.
"""

import json
from decimal import Decimal

import pytest

from ops import resend
from ops.pending import listing
from ops.resend import Resend

NOW = 1_795_000_000
EVENT = "reconciliation_0123456789abcdef0123456789abcdef"
ALERT = {
    "deliveryId": f"#{EVENT}#alert",
    "state": "PUBLISHED",
    "publishedAt": Decimal(NOW * 1000),
    "contentSha256": "0" * 64,
    "known": {"key": "ab#OPPORTUNITY#known", "at": Decimal(0), "until": Decimal(2)},
    "message": {
        "Subject": "New opportunity: Sarah Johnson",
        "Message": json.dumps({"default": json.dumps({"id": EVENT, "data": {"foundBy": "reconciliation"}})}),
        "MessageStructure": "json",
    },
}
# Rows that no command may take for a delivery.
OTHERS = [
    {"deliveryId": "ab#OPPORTUNITY#known", "holder": ALERT["deliveryId"], "quietUntil": Decimal(2)},
    {"deliveryId": "stack-reconcile-1#run", "owner": "x", "leaseUntil": Decimal(2), "progress": "{}"},
]


@pytest.fixture
def find(monkeypatch):
    """Returns the deliveries that `resend` finds among these rows."""

    def find(rows, since=None, event=None):
        class Table:
            def __init__(self, name):
                assert name == "table"

            def matching(self, expression, values):
                return rows

        outputs = {"DeliveriesTableName": "table", "AlertsTopicArn": "arn:topic"}
        stack = {
            "StackName": "stack",
            "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
        }
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr(resend, "described", lambda _: stack)
        monkeypatch.setattr(resend, "Deliveries", Table)
        return Resend("stack").find(since, event)

    return find


def test_resend_finds_an_alert_of_the_reconciliation(find):
    for asked in ({"event": EVENT}, {"since": 0}):
        found = find([*OTHERS, ALERT] if "since" in asked else [ALERT], **asked)
        assert (found.sendable, found.left_out, found.unreadable) == ([ALERT], {}, {})
    assert find([ALERT], event=EVENT[:-1]).sendable == []


def test_resend_leaves_a_late_webhook_out(find):
    late = {**ALERT, "deliveryId": "ws_1#evt_1#alert", "state": "DEBOUNCED", "debouncedBy": ALERT["deliveryId"]}
    found = find([late], event="evt_1")
    assert (found.sendable, found.unreadable) == ([], {})
    assert found.left_out == {"debounced, because another alert was published for the same lead and status": 1}


def test_pending_lists_an_alert_of_the_reconciliation():
    row = {**ALERT, "state": "PENDING", "leaseUntil": Decimal(0), "firstSeenAt": Decimal((NOW - 90) * 1000)}
    assert listing([{**row, "attempts": Decimal(1)}], NOW).splitlines()[1].split() == [
        *("0:01:30", "1", ALERT["deliveryId"], "(the", "last", "attempt", "crashed)"),
    ]
