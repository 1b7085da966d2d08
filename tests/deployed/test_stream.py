"""The lead status stream and the rules of alerts, end to end: the deployed template with each of its options, and the real binary.

What the stream does where it is off, which is nothing, test_http.py shows.
"""

import contextlib
import hashlib
import io
import json
import time
import unittest
from datetime import datetime, timezone

from local_aws.inbox import Inbox
from local_aws.journey import STAGES, change, of_event, table, travel
from local_aws.service import shared_service
from ops import request, resend
from ops.signature import SVIX
from ops.stack import NAME
from topic import refusing

WORKSPACE = "ws_abc123xyz"


def setUpModule():
    global deployed
    deployed = shared_service()
    # As the other tests want it.
    unittest.addModuleCleanup(redeploy)


def redeploy(**options):
    deployed.redeploy(**options)
    # Or it would come in between, now and then.
    deployed.redrive.pause()


def post(event):
    answer = event.post(deployed.webhook_url)
    return answer.status, answer.outcome()


def row_of(event, kind):
    return deployed.deliveries.row(f"{WORKSPACE}#{event.event_id()}#{kind}") or {}


def tagged(lead, tag, previous=None):
    """A new event: this lead is given this tag."""
    data = {"leadId": lead, "campaignId": "camp_xyz789", "previousTag": previous, "newTag": tag}
    event = {"eventId": request.fresh("evt"), "eventType": "lead.tag.updated", "timestamp": "2024-02-24T10:30:00.000Z"}
    body = json.dumps({**event, "workspaceId": WORKSPACE, "data": data}).encode()
    return request.Request(body, {"content-type": "application/json"}, SVIX, True, request.fresh("msg"))


class EitherStream:
    """What holds for the stream on a standard topic and on a FIFO topic."""

    def setUp(self):
        self.lead = request.fresh("lead")
        self.alerts, self.stream = Inbox(deployed.topic_arn), Inbox(deployed.stream_arn)

    def assert_arrived(self, alerts=(), stream=()):
        """Exactly one message of each of these events has come out, and none else."""
        arrived = []
        for inbox, events in ((self.alerts, alerts), (self.stream, stream)):
            arrived.append(inbox.collect(expected=len(events)))
            self.assertCountEqual(
                [message.event["id"] for message in arrived[-1]], [event.event_id() for event in events]
            )
        return arrived

    def test_an_opportunity_is_one_alert_and_one_message_of_the_stream(self):
        event = change(self.lead, "OPPORTUNITY")
        self.assertEqual(post(event), (200, "alerted"))
        self.assertEqual(post(event), (200, "duplicate"))
        [alert], [message] = self.assert_arrived([event], [event])
        self.assertEqual(
            (alert.event["type"], message.event["type"]),
            ("sendpilot.lead.opportunity", "sendpilot.lead.status_changed"),
        )
        # But for the type, both say the same, and the repetition of either is known by the same id.
        self.assertEqual({**alert.event, "type": None}, {**message.event, "type": None})
        self.assertIsNone(message.subject)
        self.assertEqual(message.group, self.lead)
        for kind, arrived in (("alert", alert), ("status", message)):
            row = row_of(event, kind)
            self.assertEqual((row["state"], row["attempts"], row["messageId"]), ("PUBLISHED", 1, arrived.message_id))
        self.assertEqual(deployed.deliveries.pending(), [])

    def test_its_messages_are_sent_again_without_the_alerts(self):
        time.sleep(0.002)
        since = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        events = [change(self.lead, status) for status in ("REPLY_RECEIVED", "OPPORTUNITY")]
        for event in events:
            self.assertEqual(post(event)[0], 200)
        _, before = self.assert_arrived(events[1:], events)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), self.assertRaises(SystemExit) as ended:
            resend.main(["--stack", NAME, "--since", since, "--stream", "--yes"])
        self.assertEqual(ended.exception.code, 0, printed.getvalue())
        self.assertIn("2 of 2 messages were published again.", printed.getvalue())
        fifo = deployed.stream_arn.endswith(".fifo")
        self.assertEqual("less than five minutes ago" in printed.getvalue(), fifo)
        # ministack drops what a FIFO topic was given five minutes ago, as SNS does.
        _, again = self.assert_arrived([], [] if fifo else events)
        for message, first in zip(again, before):
            self.assertEqual(
                (message.text, message.attributes, message.group), (first.text, first.attributes, first.group)
            )

    def test_while_the_stream_refuses_the_alert_goes_out_once_and_a_repetition_is_the_streams_alone(self):
        event = change(self.lead, "OPPORTUNITY")
        with refusing(deployed.stream_arn):
            self.assertEqual(post(event), (200, "alerted"))
            self.assertEqual(post(event), (200, "duplicate"))
            self.assertEqual(
                (row_of(event, "alert")["state"], row_of(event, "status")["state"]), ("PUBLISHED", "PENDING")
            )
            self.assert_arrived([event], [])
        self.assertEqual(post(event)[0], 200)
        self.assert_arrived([], [event])
        self.assertEqual((row_of(event, "alert")["attempts"], row_of(event, "status")["attempts"]), (1, 3))

    def test_while_the_alerts_are_refused_the_stream_goes_on(self):
        event = change(self.lead, "OPPORTUNITY")
        with refusing(deployed.topic_arn):
            self.assertEqual(post(event), (503, "unavailable"))
            self.assert_arrived([], [event])
        self.assertEqual(post(event), (200, "alerted"))
        self.assert_arrived([event], [])

    def test_what_sendpilot_never_sends_again_goes_out_by_the_redrive(self):
        events = [change(self.lead, status) for status in ("NOT_INTERESTED", "OPPORTUNITY")]
        with refusing(deployed.stream_arn):
            for event, outcome in zip(events, ("pending", "alerted")):
                self.assertEqual(post(event), (200, outcome))
            report = deployed.redrive.run()
            self.assertEqual((report["scanned"], report["published"], report["stillPending"]), (2, 0, 2))
        report = deployed.redrive.run()
        self.assertEqual((report["scanned"], report["published"], report["stillPending"]), (2, 2, 0))
        self.assert_arrived(events[1:], events)
        for event in events:
            self.assertEqual(post(event), (200, "duplicate"))


class OnAStandardTopic(EitherStream, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        redeploy(StatusStream="standard")

    def test_every_status_reaches_who_asked_for_it_and_nobody_else(self):
        steps = travel(deployed)
        print(f"\n{table(steps)}")
        self.assertEqual([step.status for step in steps], list(STAGES))
        previous = None
        for step in steps:
            with self.subTest(step.status):
                opportunity = step.status == "OPPORTUNITY"
                self.assertEqual(step.answer, "200 alerted" if opportunity else "200 streamed")
                self.assertEqual(len(step.alerts), opportunity)
                got = {name for name, messages in step.received.items() for _ in messages}
                wanted = {"archive"}
                wanted |= {"lost leads"} if step.status == "NOT_INTERESTED" else set()
                wanted |= {"sales"} if step.status in ("OPPORTUNITY", "DONE") else set()
                self.assertEqual(got, wanted)
                self.assertTrue(all(len(messages) <= 1 for messages in step.received.values()))
                attributes = {
                    "eventType": "sendpilot.lead.status_changed",
                    "newStatus": step.status,
                    "previousStatus": previous,
                    "crmStage": STAGES[step.status],
                    "workspaceId": WORKSPACE,
                    "campaignId": "camp_xyz789",
                    "changedBy": "automation",
                }
                self.assertEqual(step.message().attributes, {name: text for name, text in attributes.items() if text})
                self.assertEqual(step.message().event["data"]["crmStage"], STAGES[step.status])
                previous = step.status

    def test_what_is_no_change_of_status_is_none_of_the_streams(self):
        event = request.read("events/message-sent.json").with_event_id(request.fresh("evt"))
        self.assertEqual(post(event), (200, "ignored"))
        self.assertEqual(row_of(event, "status"), {})
        self.assert_arrived()

    def test_no_attribute_is_empty_or_tells_who_changed_it(self):
        event = change(self.lead, "DONE", previous=None).with_data(campaignId=None, changedBy="Jane Doe")
        self.assertEqual(post(event), (200, "streamed"))
        _, [message] = self.assert_arrived([], [event])
        self.assertEqual(message.attributes.keys(), {"eventType", "newStatus", "crmStage", "workspaceId", "changedBy"})
        self.assertEqual(message.attributes["changedBy"], "other")


class OnAFifoTopicWithRulesOfOnesOwn(EitherStream, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        redeploy(
            StatusStream="fifo",
            StatusPipeline="OPPORTUNITY=sales qualified,MEETING_BOOKED=demo",
            AlertStatuses="OPPORTUNITY, MEETING_BOOKED",
            AlertTags="hot lead,Call Back",
            DebounceMinutes=60,
        )

    def test_each_leads_changes_come_in_the_order_in_which_they_were_published(self):
        leads = [request.fresh("lead") for _ in range(2)]
        events = [change(lead, status) for status in ("REPLY_RECEIVED", "NOT_INTERESTED", "DONE") for lead in leads]
        for event in events:
            self.assertEqual(post(event), (200, "streamed"))
        _, messages = self.assert_arrived([], events)
        for lead in leads:
            of_lead = [message.event["data"]["newStatus"] for message in messages if message.group == lead]
            self.assertEqual(of_lead, ["REPLY_RECEIVED", "NOT_INTERESTED", "DONE"])

    def test_a_message_says_by_its_delivery_what_is_a_repetition(self):
        event = change(self.lead, "DONE")
        post(event)
        row = row_of(event, "status")
        self.assertEqual(
            row["message"]["MessageDeduplicationId"], hashlib.sha256(row["deliveryId"].encode()).hexdigest()
        )
        self.assertEqual(row["message"]["MessageGroupId"], self.lead)

    def test_a_lead_id_that_is_no_group_id_is_hashed(self):
        lead = "lead with blanks"
        event = change(lead, "DONE")
        self.assertEqual(post(event), (200, "streamed"))
        _, [message] = self.assert_arrived([], [event])
        self.assertEqual(message.group, f"sha256:{hashlib.sha256(lead.encode()).hexdigest()}")

    def test_the_statuses_that_alert_are_those_of_the_parameter(self):
        event = change(self.lead, "MEETING_BOOKED", "OPPORTUNITY")
        self.assertEqual(post(event), (200, "alerted"))
        [alert], _ = self.assert_arrived([event], [event])
        self.assertEqual(
            (alert.event["type"], alert.event["data"]["newStatus"]), ("sendpilot.lead.status_reached", "MEETING_BOOKED")
        )

    def test_stages_are_those_of_the_parameter(self):
        events = {"sales qualified": change(self.lead, "OPPORTUNITY"), "unknown": change(self.lead, "DONE")}
        for event in events.values():
            post(event)
        messages = of_event(self.stream.collect(expected=2))
        for stage, event in events.items():
            [message] = messages[event.event_id()]
            self.assertEqual((message.attributes["crmStage"], message.event["data"]["crmStage"]), (stage, stage))

    def test_a_tag_of_the_parameter_alerts_and_is_no_change_of_status(self):
        event, other = tagged(self.lead, "HOT Lead", "cold"), tagged(self.lead, "cold")
        self.assertEqual(post(event), (200, "alerted"))
        self.assertEqual(post(other), (200, "ignored"))
        [alert], _ = self.assert_arrived([event], [])
        self.assertEqual((alert.event["type"], alert.event["subject"]), ("sendpilot.lead.tagged", self.lead))
        self.assertEqual(alert.event["data"]["newTag"], "HOT Lead")

    def test_within_the_minutes_there_is_one_alert_for_a_lead_and_status_and_all_of_the_stream(self):
        first, again = change(self.lead, "OPPORTUNITY"), change(self.lead, "OPPORTUNITY", "MEETING_BOOKED")
        others = [change(self.lead, "MEETING_BOOKED"), change(request.fresh("lead"), "OPPORTUNITY")]
        self.assertEqual(post(first), (200, "alerted"))
        self.assertEqual(post(again), (200, "debounced"))
        self.assertEqual(post(again), (200, "duplicate"))
        for event in others:
            self.assertEqual(post(event), (200, "alerted"))
        self.assert_arrived([first, *others], [first, again, *others])
        self.assertEqual(row_of(again, "alert")["state"], "DEBOUNCED")
        self.assertEqual(deployed.deliveries.pending(), [])

    def test_an_alert_that_is_kept_quiet_is_quiet_by_one_that_goes_out(self):
        first, again = change(self.lead, "OPPORTUNITY"), change(self.lead, "OPPORTUNITY", "DONE")
        with refusing(deployed.topic_arn):
            self.assertEqual(post(first), (503, "unavailable"))
            self.assertEqual(post(again), (200, "debounced"))
        self.assertEqual(post(first), (200, "alerted"))
        self.assert_arrived([first], [first, again])


if __name__ == "__main__":
    unittest.main()
