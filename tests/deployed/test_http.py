"""The deployed template, end to end: real requests to the real binary, on a local AWS that enforces IAM."""

import json
import re
import time
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import boto3

from local_aws.inbox import Inbox
from local_aws.service import shared_service
from ops import request
from ops.pending import listing
from ops.signature import DOCUMENTED, SAMPLE_SECRET, STANDARD, SVIX, fresh_secret
from ops.stack import NAME
from topic import refusing

EVENTS = Path("events")


def setUpModule():
    global deployed
    deployed = shared_service()
    # Or it would come in between, now and then.
    deployed.redrive.pause()


def an_event(name):
    """The event of a file, as if it were a new one."""
    return request.read(EVENTS / f"{name}.json").with_event_id(request.fresh("evt"))


def post(sent, secret=SAMPLE_SECRET):
    return sent.post(deployed.webhook_url, secret)


def configuration(logical_id):
    """A function as it is deployed."""
    described = boto3.client("cloudformation").describe_stack_resource(StackName=NAME, LogicalResourceId=logical_id)
    name = described["StackResourceDetail"]["PhysicalResourceId"]
    found = boto3.client("lambda").get_function_configuration(FunctionName=name)
    return {key: value for key, value in found.items() if key != "ResponseMetadata"}


def row_of(event_id, kind="alert"):
    return deployed.deliveries.row(f"ws_abc123xyz#{event_id}#{kind}")


class DeployedStack(unittest.TestCase):
    def setUp(self):
        self.inbox = Inbox(deployed.topic_arn)

    def assert_alerts(self, *event_ids):
        """Exactly one alert has come out for each of these events, and none else."""
        alerts = self.inbox.collect(expected=len(event_ids))
        self.assertEqual(Counter(alert.event["id"] for alert in alerts), Counter(event_ids))
        return alerts

    def assert_answer(self, answer, status, outcome):
        self.assertEqual((answer.status, answer.outcome()), (status, outcome), answer.body)

    def test_both_event_names_and_all_signature_forms_alert(self):
        sent = [
            replace(an_event(name), form=form)
            for name in ("opportunity", "opportunity-lead-updated")
            for form in (SVIX, STANDARD, DOCUMENTED)
        ]
        for event in sent:
            self.assert_answer(post(event), 200, "alerted")
        self.assert_alerts(*(event.event_id() for event in sent))

    def test_every_file_in_events_is_answered_as_their_table_says(self):
        table = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+)", (EVENTS / "README.md").read_text(), re.MULTILINE)
        self.assertEqual({name for name, _ in table}, {path.stem for path in EVENTS.glob("*.json")})
        alerted = []
        for name, status in table:
            with self.subTest(name):
                event = an_event(name)
                answer = post(event)
                self.assertEqual(answer.status, int(status), answer.body)
                if answer.outcome() == "alerted":
                    alerted.append(event.event_id() or event.message_id)
        self.assert_alerts(*alerted)

    def test_a_repetition_is_a_duplicate(self):
        event = an_event("opportunity")
        self.assert_answer(post(event), 200, "alerted")
        self.assert_answer(post(event), 200, "duplicate")
        self.assert_answer(post(event), 200, "duplicate")
        self.assert_alerts(event.event_id())

    def test_fifty_at_once_make_one_alert(self):
        event = an_event("opportunity")
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(post, [event] * 50))
        said = Counter((answer.status, answer.outcome()) for answer in answers)
        self.assertEqual(said.pop((200, "alerted"), 0), 1)
        self.assertLessEqual(said.keys(), {(200, "duplicate"), (409, "in_progress")})
        self.assert_alerts(event.event_id())

    def test_another_status_is_ignored(self):
        event = an_event("reply-received")
        self.assert_answer(post(event), 200, "ignored")
        for kind in ("alert", "status"):
            self.assertIsNone(row_of(event.event_id(), kind))
        self.assert_alerts()

    def test_who_has_not_the_secret_does_not_get_in(self):
        for name in ("forged", "unsigned"):
            with self.subTest(name):
                event = an_event(name)
                self.assert_answer(post(event), 401, "unauthorized")
                self.assertIsNone(row_of(event.event_id()))
        self.assert_alerts()

    def test_a_rotation_is_one_put_and_no_deploy_and_rejects_nothing_that_is_genuine(self):
        old, new = SAMPLE_SECRET, fresh_secret()
        before = configuration("WebhookFunction")
        sent = []

        def all_get_in(*signed_with):
            events = [(an_event("opportunity"), secret) for secret in signed_with * 4]
            # Together, so that several processes have to learn of it.
            with ThreadPoolExecutor(len(events)) as pool:
                for answer in pool.map(lambda event: post(*event), events):
                    self.assert_answer(answer, 200, "alerted")
            sent.extend(event.event_id() for event, _ in events)

        self.assert_answer(post(an_event("opportunity"), new), 401, "unauthorized")
        all_get_in(old)
        deployed.secret.put(new)
        # The one that the other tests sign with; until then, it is the previous one.
        self.addCleanup(deployed.secret.put, old)
        all_get_in(new)
        all_get_in(old, new)
        all_get_in(new)
        self.assert_alerts(*sent)
        self.assertEqual(configuration("WebhookFunction"), before)

    def test_the_secret_stands_nowhere_but_in_secrets_manager(self):
        cloudformation = boto3.client("cloudformation")
        shown = [
            cloudformation.describe_stacks(StackName=NAME),
            cloudformation.get_template(StackName=NAME, TemplateStage="Processed"),
            configuration("WebhookFunction"),
            configuration("RedriveFunction"),
        ]
        self.assertIn("WEBHOOK_SECRET_ID", str(shown))
        self.assertNotIn(SAMPLE_SECRET, str(shown))

    def test_what_cannot_be_read_is_told_so(self):
        self.assert_answer(post(an_event("malformed")), 400, "malformed")
        self.assert_answer(post(an_event("lead-without-id")), 400, "malformed")
        oversized = replace(an_event("opportunity"), body=b" " * (256 * 1024 + 1))
        self.assert_answer(post(oversized), 413, "too_large")
        self.assert_alerts()

    def test_only_the_one_route_exists(self):
        self.assertEqual(request.exchange("GET", deployed.webhook_url).status, 404)
        self.assertEqual(request.exchange("POST", f"{deployed.webhook_url}/more", b"{}").status, 404)

    def test_the_row_tells_the_whole_story(self):
        event = an_event("opportunity")
        post(event)
        (alert,) = self.assert_alerts(event.event_id())
        row = row_of(event.event_id())
        self.assertEqual(
            row.keys(),
            {"deliveryId", "state", "owner", "leaseUntil", "attempts", "firstSeenAt", "message", "contentSha256"}
            | {"publishedAt", "messageId", "expiresAt"},
        )
        self.assertEqual((row["state"], row["attempts"], row["messageId"]), ("PUBLISHED", 1, alert.message_id))
        self.assertLessEqual(row["firstSeenAt"], row["publishedAt"])
        self.assertEqual(row["expiresAt"], row["publishedAt"] // 1000 + 30 * 24 * 60 * 60)
        published = json.loads(row["message"]["Message"])
        self.assertEqual((alert.subject, alert.event), (row["message"]["Subject"], json.loads(published["default"])))
        self.assertEqual(deployed.deliveries.pending(), [])

    def test_while_the_topic_refuses_nothing_is_lost(self):
        event = an_event("opportunity")
        with refusing(deployed.topic_arn):
            answer = post(event)
            self.assert_answer(answer, 503, "unavailable")
            self.assertIn("retry-after", answer.headers)
            row = row_of(event.event_id())
            self.assertEqual(row["state"], "PENDING")
            self.assertNotIn("expiresAt", row)
            self.assertIn("AuthorizationError", row["lastError"])
            self.assertEqual(len(deployed.deliveries.pending()), 1)
        self.assert_answer(post(event), 200, "alerted")
        self.assertEqual(row_of(event.event_id())["attempts"], 2)
        self.assertEqual(deployed.deliveries.pending(), [])
        self.assert_alerts(event.event_id())

    def test_what_sendpilot_never_sends_again_is_listed_and_goes_out_by_the_redrive(self):
        events = [an_event("opportunity") for _ in range(3)]
        with refusing(deployed.topic_arn):
            for event in events:
                self.assert_answer(post(event), 503, "unavailable")
            report = deployed.redrive.run()
            self.assertEqual((report["scanned"], report["published"], report["stillPending"]), (3, 0, 3))
            lines = listing(deployed.deliveries.pending(), time.time()).splitlines()
            self.assertEqual(len(lines), 1 + len(events))
            for event, line in zip(events, lines[1:]):
                self.assertRegex(line, rf"0:00:\d\d  2 +ws_abc123xyz#{event.event_id()}#alert  .*AuthorizationError")
        done = {"scanned": 3, "published": 3, "duplicates": 0, "stillPending": 0, "oldestPendingAgeSeconds": 0}
        self.assertEqual(deployed.redrive.run(), done)
        self.assertEqual(listing(deployed.deliveries.pending(), time.time()), "Nothing is pending.")
        self.assert_alerts(*(event.event_id() for event in events))
        self.assert_answer(post(events[0]), 200, "duplicate")

    def test_the_redrive_runs_every_minute_by_itself(self):
        event = an_event("opportunity")
        with refusing(deployed.topic_arn):
            post(event)
        deployed.redrive.resume()
        self.addCleanup(deployed.redrive.pause)
        (alert,) = self.inbox.collect(expected=1, patience=100)
        self.assertEqual(alert.event["id"], event.event_id())
