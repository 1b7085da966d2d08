"""The lead status stream and the rules of alerts, end to end: the deployed template and the real binary.

`test_http.py` covers the stack without a stream, which is the default.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone

import pytest

from faults import refusing
from local_aws.inbox import Inbox
from local_aws.journey import STAGES, change, of_event, table, travel
from ops import request
from ops.__main__ import main
from ops.signature import SVIX
from ops.stack import NAME

WORKSPACE = "ws_abc123xyz"
OPTIONS = {
    "standard": {"StatusStream": "standard"},
    # This stack also sets the rules of alerts.
    "fifo": {
        "StatusStream": "fifo",
        "StatusPipeline": "OPPORTUNITY=sales qualified,MEETING_BOOKED=demo",
        "AlertStatuses": "OPPORTUNITY, MEETING_BOOKED",
        "AlertTags": "hot lead,Call Back",
        "DebounceMinutes": 60,
    },
}
# The stacks that a test runs on.
standard = pytest.mark.parametrize("deployed", ["standard"], indirect=True)
fifo = pytest.mark.parametrize("deployed", ["fifo"], indirect=True)
either = pytest.mark.parametrize("deployed", ["standard", "fifo"], indirect=True)


@pytest.fixture(scope="module")
def deployed(service, request):
    service.redeploy(**OPTIONS[request.param])
    # The schedule would sometimes publish between two steps of a test.
    service.redrive.pause()
    return service


@dataclass
class Subscribers:
    """A subscriber of the alerts, a subscriber of the stream, and a new lead."""

    alerts: Inbox
    stream: Inbox
    lead: str = field(default_factory=lambda: request.fresh("lead"))

    def assert_arrived(self, alerts=(), stream=()):
        """Asserts that exactly one message of each of these events arrived, and no other message."""
        arrived = []
        for inbox, events in ((self.alerts, alerts), (self.stream, stream)):
            arrived.append(inbox.collect(expected=len(events)))
            ids = [message.event["id"] for message in arrived[-1]]
            assert sorted(ids) == sorted(event.event_id() for event in events)
        return arrived


@pytest.fixture
def subscribed(deployed, open_inbox):
    return Subscribers(open_inbox(deployed.topic_arn), open_inbox(deployed.stream_arn))


@pytest.fixture
def lead(subscribed):
    return subscribed.lead


@pytest.fixture
def row_of(deployed):
    def row_of(event, kind):
        return deployed.deliveries.row(f"{WORKSPACE}#{event.event_id()}#{kind}") or {}

    return row_of


def said(answer):
    return answer.status, answer.outcome()


def tagged(lead, tag, previous=None):
    """Returns a new event that gives this lead this tag."""
    data = {"leadId": lead, "campaignId": "camp_xyz789", "previousTag": previous, "newTag": tag}
    event = {"eventId": request.fresh("evt"), "eventType": "lead.tag.updated", "timestamp": "2024-02-24T10:30:00.000Z"}
    body = json.dumps({**event, "workspaceId": WORKSPACE, "data": data}).encode()
    return request.Request(body, {"content-type": "application/json"}, SVIX, True, request.fresh("msg"))


@either
def test_an_opportunity_is_one_alert_and_one_message_of_the_stream(deployed, post, row_of, subscribed, lead):
    event = change(lead, "OPPORTUNITY")
    assert said(post(event)) == (200, "alerted")
    assert said(post(event)) == (200, "duplicate")
    [alert], [message] = subscribed.assert_arrived([event], [event])
    assert (alert.event["type"], message.event["type"]) == (
        "sendpilot.lead.opportunity",
        "sendpilot.lead.status_changed",
    )
    # Both differ only in the type, and a duplicate of either has the same id.
    assert {**alert.event, "type": None} == {**message.event, "type": None}
    assert message.subject is None
    assert message.group == lead
    for kind, arrived in (("alert", alert), ("status", message)):
        row = row_of(event, kind)
        assert (row["state"], row["attempts"], row["messageId"]) == ("PUBLISHED", 1, arrived.message_id)
    assert deployed.deliveries.pending() == []


@either
def test_resend_repeats_the_streams_messages_without_the_alerts(deployed, post, subscribed, lead, capsys):
    time.sleep(0.002)
    since = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    events = [change(lead, status) for status in ("REPLY_RECEIVED", "OPPORTUNITY")]
    for event in events:
        assert post(event).status == 200
    _, before = subscribed.assert_arrived(events[1:], events)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["resend", NAME, "--since", since, "--stream", "--yes"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert "2 of 2 messages were published again." in printed
    fifo = deployed.stream_arn.endswith(".fifo")
    assert ("less than five minutes ago" in printed) == fifo
    # Like SNS, ministack drops a message that a FIFO topic got less than five minutes ago.
    _, again = subscribed.assert_arrived([], [] if fifo else events)
    for message, first in zip(again, before, strict=False):
        assert (message.text, message.attributes, message.group) == (first.text, first.attributes, first.group)


@either
def test_while_the_stream_refuses_the_alert_is_published_once(deployed, post, row_of, subscribed, lead):
    event = change(lead, "OPPORTUNITY")
    with refusing(deployed.stream_arn):
        assert said(post(event)) == (200, "alerted")
        assert said(post(event)) == (200, "duplicate")
        assert (row_of(event, "alert")["state"], row_of(event, "status")["state"]) == ("PUBLISHED", "PENDING")
        subscribed.assert_arrived([event], [])
    # SendPilot's retry reaches only the stream.
    assert post(event).status == 200
    subscribed.assert_arrived([], [event])
    assert (row_of(event, "alert")["attempts"], row_of(event, "status")["attempts"]) == (1, 3)


@either
def test_while_the_alerts_are_refused_the_stream_goes_on(deployed, post, subscribed, lead):
    event = change(lead, "OPPORTUNITY")
    with refusing(deployed.topic_arn):
        assert said(post(event)) == (503, "unavailable")
        subscribed.assert_arrived([], [event])
    assert said(post(event)) == (200, "alerted")
    subscribed.assert_arrived([event], [])


@either
def test_the_redrive_publishes_messages_that_sendpilot_never_sends_again(deployed, post, subscribed, lead):
    events = [change(lead, status) for status in ("NOT_INTERESTED", "OPPORTUNITY")]
    with refusing(deployed.stream_arn):
        for event, outcome in zip(events, ("pending", "alerted"), strict=True):
            assert said(post(event)) == (200, outcome)
        report = deployed.redrive.run()
        assert (report["scanned"], report["published"], report["stillPending"]) == (2, 0, 2)
    report = deployed.redrive.run()
    assert (report["scanned"], report["published"], report["stillPending"]) == (2, 2, 0)
    subscribed.assert_arrived(events[1:], events)
    for event in events:
        assert said(post(event)) == (200, "duplicate")


@standard
def test_each_subscriber_gets_the_statuses_in_its_filter(deployed):
    steps = travel(deployed)
    print(f"\n{table(steps)}")
    assert [step.status for step in steps] == list(STAGES)
    previous = None
    for step in steps:
        opportunity = step.status == "OPPORTUNITY"
        assert step.answer == ("200 alerted" if opportunity else "200 streamed"), step
        assert len(step.alerts) == opportunity, step
        got = {name for name, messages in step.received.items() for _ in messages}
        wanted = {"archive"}
        wanted |= {"lost leads"} if step.status == "NOT_INTERESTED" else set()
        wanted |= {"sales"} if step.status in ("OPPORTUNITY", "DONE") else set()
        assert got == wanted, step
        assert all(len(messages) <= 1 for messages in step.received.values()), step
        attributes = {
            "eventType": "sendpilot.lead.status_changed",
            "newStatus": step.status,
            "previousStatus": previous,
            "crmStage": STAGES[step.status],
            "workspaceId": WORKSPACE,
            "campaignId": "camp_xyz789",
            "changedBy": "automation",
        }
        assert step.message().attributes == {name: text for name, text in attributes.items() if text}
        assert step.message().event["data"]["crmStage"] == STAGES[step.status]
        previous = step.status


@standard
def test_an_event_that_changes_no_status_is_not_streamed(post, row_of, subscribed):
    event = request.read("events/message-sent.json").with_event_id(request.fresh("evt"))
    assert said(post(event)) == (200, "ignored")
    assert row_of(event, "status") == {}
    subscribed.assert_arrived()


@standard
def test_no_attribute_is_empty_or_names_who_changed_the_status(post, subscribed, lead):
    event = change(lead, "DONE", previous=None).with_data(campaignId=None, changedBy="Jane Doe")
    assert said(post(event)) == (200, "streamed")
    _, [message] = subscribed.assert_arrived([], [event])
    assert message.attributes.keys() == {"eventType", "newStatus", "crmStage", "workspaceId", "changedBy"}
    assert message.attributes["changedBy"] == "other"


@fifo
def test_a_leads_changes_arrive_in_the_order_of_their_publishes(post, subscribed):
    leads = [request.fresh("lead") for _ in range(2)]
    events = [change(lead, status) for status in ("REPLY_RECEIVED", "NOT_INTERESTED", "DONE") for lead in leads]
    for event in events:
        assert said(post(event)) == (200, "streamed")
    _, messages = subscribed.assert_arrived([], events)
    for lead in leads:
        of_lead = [message.event["data"]["newStatus"] for message in messages if message.group == lead]
        assert of_lead == ["REPLY_RECEIVED", "NOT_INTERESTED", "DONE"]


@fifo
def test_the_deduplication_id_is_that_of_the_delivery(post, row_of, subscribed, lead):
    event = change(lead, "DONE")
    post(event)
    row = row_of(event, "status")
    assert row["message"]["MessageDeduplicationId"] == hashlib.sha256(row["deliveryId"].encode()).hexdigest()
    assert row["message"]["MessageGroupId"] == lead


@fifo
def test_a_lead_id_that_cannot_be_a_group_id_is_hashed(post, subscribed):
    lead = "lead with blanks"
    event = change(lead, "DONE")
    assert said(post(event)) == (200, "streamed")
    _, [message] = subscribed.assert_arrived([], [event])
    assert message.group == f"sha256:{hashlib.sha256(lead.encode()).hexdigest()}"


@fifo
def test_alert_statuses_sets_the_statuses_that_alert(post, subscribed, lead):
    event = change(lead, "MEETING_BOOKED", "OPPORTUNITY")
    assert said(post(event)) == (200, "alerted")
    [alert], _ = subscribed.assert_arrived([event], [event])
    assert (alert.event["type"], alert.event["data"]["newStatus"]) == (
        "sendpilot.lead.status_reached",
        "MEETING_BOOKED",
    )


@fifo
def test_status_pipeline_sets_the_stages(post, subscribed, lead):
    events = {"sales qualified": change(lead, "OPPORTUNITY"), "unknown": change(lead, "DONE")}
    for event in events.values():
        post(event)
    messages = of_event(subscribed.stream.collect(expected=2))
    for stage, event in events.items():
        [message] = messages[event.event_id()]
        assert (message.attributes["crmStage"], message.event["data"]["crmStage"]) == (stage, stage)


@fifo
def test_alert_tags_sets_the_tags_that_alert(post, subscribed, lead):
    event, other = tagged(lead, "HOT Lead", "cold"), tagged(lead, "cold")
    assert said(post(event)) == (200, "alerted")
    assert said(post(other)) == (200, "ignored")
    # A tag is not a change of status, so the stream gets nothing.
    [alert], _ = subscribed.assert_arrived([event], [])
    assert (alert.event["type"], alert.event["subject"]) == ("sendpilot.lead.tagged", lead)
    assert alert.event["data"]["newTag"] == "HOT Lead"


@fifo
def test_debounce_suppresses_a_second_alert_but_no_message_of_the_stream(deployed, post, row_of, subscribed, lead):
    first, again = change(lead, "OPPORTUNITY"), change(lead, "OPPORTUNITY", "MEETING_BOOKED")
    others = [change(lead, "MEETING_BOOKED"), change(request.fresh("lead"), "OPPORTUNITY")]
    assert said(post(first)) == (200, "alerted")
    assert said(post(again)) == (200, "debounced")
    assert said(post(again)) == (200, "duplicate")
    for event in others:
        assert said(post(event)) == (200, "alerted")
    subscribed.assert_arrived([first, *others], [first, again, *others])
    assert row_of(again, "alert")["state"] == "DEBOUNCED"
    assert deployed.deliveries.pending() == []


@fifo
def test_only_an_alert_that_will_be_published_debounces_another(deployed, post, subscribed, lead):
    first, again = change(lead, "OPPORTUNITY"), change(lead, "OPPORTUNITY", "DONE")
    with refusing(deployed.topic_arn):
        assert said(post(first)) == (503, "unavailable")
        assert said(post(again)) == (200, "debounced")
    assert said(post(first)) == (200, "alerted")
    subscribed.assert_arrived([first], [first, again])
