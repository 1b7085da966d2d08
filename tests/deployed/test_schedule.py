"""The schedule of the deployed redrive."""

from faults import refusing
from ops import request


def test_the_redrive_runs_every_minute(deployed, post, open_inbox, cleanup):
    inbox = open_inbox(deployed.topic_arn)
    event = request.read("events/opportunity.json").with_event_id(request.fresh("evt"))
    with refusing(deployed.topic_arn):
        post(event)
    deployed.redrive.resume()
    cleanup.callback(deployed.redrive.pause)
    (alert,) = inbox.collect(expected=1, patience=100)
    assert alert.event["id"] == event.event_id()
