"""The deployed redrive: it publishes alerts that SendPilot never sends again."""

import re
import time

import pytest

from faults import refusing
from ops import request
from ops.pending import listing


@pytest.fixture
def inbox(deployed, open_inbox):
    return open_inbox(deployed.topic_arn)


def opportunity():
    return request.read("events/opportunity.json").with_event_id(request.fresh("evt"))


def said(answer):
    return answer.status, answer.outcome()


def test_it_publishes_alerts_that_sendpilot_never_sends_again(deployed, post, inbox):
    events = [opportunity() for _ in range(3)]
    with refusing(deployed.topic_arn):
        for event in events:
            assert said(post(event)) == (503, "unavailable")
        report = deployed.redrive.run()
        assert (report["scanned"], report["published"], report["stillPending"]) == (3, 0, 3)
        lines = listing(deployed.deliveries.pending(), time.time()).splitlines()
        assert len(lines) == 1 + len(events)
        for event, line in zip(events, lines[1:], strict=True):
            assert re.search(rf"0:00:\d\d  2 +ws_abc123xyz#{event.event_id()}#alert  .*AuthorizationError", line)
    done = {"scanned": 3, "published": 3, "duplicates": 0, "stillPending": 0, "oldestPendingAgeSeconds": 0}
    assert deployed.redrive.run() == done
    assert listing(deployed.deliveries.pending(), time.time()) == "Nothing is pending."
    alerts = inbox.collect(expected=len(events))
    assert sorted(alert.event["id"] for alert in alerts) == sorted(event.event_id() for event in events)
    assert said(post(events[0])) == (200, "duplicate")
