"""`make resend` against the deployed template: alerts reach new subscribers, unchanged and paced."""

import contextlib
import io
import json
import shlex
import subprocess
import tempfile
import threading
import time
import unittest
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import boto3
from botocore.awsrequest import AWSResponse

from local_aws.function import ROOT
from local_aws.inbox import Inbox
from local_aws.journey import change
from local_aws.service import shared_service
from ops import pace, request, resend
from ops.deliveries import bodies
from ops.pace import Pace, WrongClock
from ops.stack import NAME, outputs
from ops.subscribers import subscriptions
from session import hooked, somebody_who_may_not
from topic import refusing

WORKSPACE = "ws_abc123xyz"
NOW = 1795636800000  # 2026-11-25T20:00:00Z in milliseconds


def setUpModule():
    global deployed, table_name
    deployed = shared_service()
    table_name = outputs(NAME)["DeliveriesTableName"]


class Period(unittest.TestCase):
    def test_it_is_a_span_or_a_time_with_its_offset(self):
        for text, minutes in (("90m", 90), ("2h", 120), ("3d", 3 * 24 * 60)):
            self.assertEqual(resend.moment(text, NOW), NOW - minutes * 60_000)
        for text in ("2026-11-25T19:00:00Z", "2026-11-25T20:00:00+01:00", "2026-11-25T19:00:00z"):
            self.assertEqual(resend.moment(text, NOW), NOW - 3_600_000, text)

    def test_anything_else_is_refused_with_what_to_give(self):
        for text in ("2", "h", "0h", "-2h", "2 h", "2w", "2026-11-25", "2026-11-25T19:00:00", "yesterday", "\x1b[2J"):
            with self.assertRaisesRegex(resend.Refused, "Give either SINCE=2h") as refused:
                resend.moment(text, NOW)
            self.assertNotIn("\x1b", str(refused.exception))
        with self.assertRaisesRegex(resend.Refused, "in the future"):
            resend.moment("2026-11-25T20:00:01Z", NOW)


class Command(unittest.TestCase):
    """`make resend`: what it would run."""

    def make(self, *variables):
        command = ["make", "--dry-run", "--no-print-directory", "resend", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def test_it_passes_every_value_on_as_it_is(self):
        with tempfile.TemporaryDirectory() as scratch:
            ran = Path(scratch, "ran")
            expanded = f"$(shell touch {ran})", f"$(touch {ran})"
            for value in ("a b  c", "a'b", 'a"b', "a$b", "a#b%", "a\\", "-x", "\u00e9", *expanded):
                made = self.make(f"EVENT={value}", f"STACK={value}", "YES=yes")
                words = shlex.split(made.stdout.replace("\\\n", ""))
                arguments = words[words.index("ops.resend") + 1 :]
                self.assertEqual(arguments, [f"--stack={value}", f"--event={value}", "--yes"])
            self.assertFalse(ran.exists())

    def test_a_word_that_it_does_not_know_is_refused(self):
        # With STREAM=1 taken for no, everybody would get the alerts instead of the stream's messages.
        for variables in (("STREAM=1", "YES=yes"), ("STREAM=true",), ("YES=1",)):
            made = self.make("SINCE=2h", *variables)
            self.assertEqual((made.returncode, made.stdout), (2, ""))
            self.assertIn("STREAM and YES take yes or no", made.stderr)


class Slots(unittest.TestCase):
    def test_a_moment_is_in_the_slot_that_started_last(self):
        for rate in (1, 3, 5, 7, 100):
            for now in (NOW, NOW + 1, NOW + 199, NOW + 200, NOW + 333, NOW + 334, NOW + 999):
                slot = pace.slot_at(now, rate)
                self.assertLessEqual(pace.start_of(slot, rate), now)
                self.assertGreater(pace.start_of(slot + 1, rate), now)
        self.assertEqual(
            [pace.start_of(pace.slot_at(NOW, 3) + step, 3) - NOW for step in range(4)], [0, 334, 667, 1000]
        )

    def test_publishers_at_once_share_the_slots_of_each_second(self):
        rate, ready = 20, []

        def publish():
            pace = Pace(table_name, rate)
            for _ in range(10):
                pace.wait()
                ready.append(time.time())

        publishers = [threading.Thread(target=publish) for _ in range(3)]
        for publisher in publishers:
            publisher.start()
        for publisher in publishers:
            publisher.join()
        ready.sort()
        self.assertEqual(len(ready), 30)
        # A publisher is let go some milliseconds after the start of its slot, and never before.
        for first, later in zip(ready, ready[rate + 1 :]):
            self.assertGreater(later - first, 0.9)

    def test_a_slot_has_a_row_that_expires(self):
        clock = Clock(NOW / 1000)
        with mock.patch.object(pace, "MAX_SKEW", float("inf")):
            for _ in range(3):
                Pace(table_name, 5, clock).wait()
        self.assertEqual(clock.slept, [0, 0.2, 0.2])
        for start in (NOW, NOW + 200, NOW + 400):
            row = deployed.deliveries.row(f"{start}#slot")
            self.assertRegex(row.pop("owner"), "^resend/[0-9a-f]{16}$")
            self.assertEqual(row, {"deliveryId": f"{start}#slot", "expiresAt": NOW // 1000 + 3600})
        # Not the same slot for the second alert of one publisher.
        with mock.patch.object(pace, "MAX_SKEW", float("inf")):
            again = Pace(table_name, 5, clock)
            again.wait()
            again.wait()
        self.assertEqual(clock.slept[3:], [0.2, 0.2])

    def test_a_slot_that_was_overslept_is_not_used(self):
        clock = Clock(NOW / 1000 + 60, oversleeps=[2])
        with mock.patch.object(pace, "MAX_SKEW", float("inf")):
            Pace(table_name, 5, clock).wait()
        self.assertEqual(clock.slept, [0, 0])
        self.assertTrue(deployed.deliveries.row(f"{NOW + 60_000}#slot"))
        self.assertTrue(deployed.deliveries.row(f"{NOW + 62_000}#slot"))

    def test_over_a_slow_network_a_slot_is_taken_ahead(self):
        clock, began = Clock(NOW / 1000 + 120), NOW + 120_000

        def pass_time(**_):
            self.assertLess(clock.now, NOW / 1000 + 130, "no slot serves")
            clock.now += 1.5

        with mock.patch.object(pace, "MAX_SKEW", float("inf")), hooked("before-call.dynamodb.UpdateItem", pass_time):
            Pace(table_name, 5, clock).wait()
        self.assertEqual(clock.slept, [0, 0])
        # The first slot was over when the answer came. The second one begins when it comes.
        for start in (began, began + 3000):
            self.assertTrue(deployed.deliveries.row(f"{start}#slot"), start - began)

    def test_with_zero_alerts_are_not_paced(self):
        clock = Clock(NOW / 1000)
        Pace(table_name, 0, clock).wait()
        self.assertEqual(clock.slept, [])

    def test_a_wrong_clock_is_refused_since_its_slots_are_nobody_elses(self):
        for seconds, way in ((60, "ahead of"), (-60, "behind")):
            with self.assertRaisesRegex(WrongClock, rf"\d\d seconds {way} AWS's"):
                Pace(table_name, 5, Clock(time.time() + seconds)).wait()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, now, oversleeps=()):
        self.now, self.slept, self._oversleeps = now, [], list(oversleeps)

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 3))
        self.now += seconds + (self._oversleeps.pop(0) if self._oversleeps else 0)


class Resend(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        # From here on, so that alerts of other tests are left alone.
        time.sleep(0.002)
        self.began = datetime.now(timezone.utc).isoformat(timespec="milliseconds")

    def resend(self, *arguments, since=None, terminal=None):
        """Runs `make resend`, and keeps its output and exit status. A person answers `terminal`."""
        which = [] if "--event" in arguments else ["--since", since or self.began]
        printed, said = io.StringIO(), mock.Mock(return_value=terminal)
        stdin = mock.Mock(isatty=lambda: terminal is not None)
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            mock.patch("builtins.input", said),mock.patch("sys.stdin", stdin), self.assertRaises(SystemExit) as ended
        ):
            resend.main(["--stack", NAME, *which, *arguments])
        self.printed, self.status, self.asked = (
            printed.getvalue(),
            ended.exception.code,
            [call.args[0] for call in said.mock_calls],
        )
        self.assertTrue(all(" " <= character <= "~" for character in self.printed.replace("\n", "")), self.printed)

    def alert(self, event_id=None, **data):
        """Posts an opportunity, whose alert is published. Returns its row."""
        event = change(request.fresh("lead"), "OPPORTUNITY").with_data(**data)
        if event_id:
            event = event.with_event_id(event_id)
        answer = event.post(deployed.webhook_url)
        self.assertEqual((answer.status, answer.outcome()), (200, "alerted"))
        return deployed.deliveries.row(f"{WORKSPACE}#{event.event_id()}#alert")

    def put(self, **row):
        """Puts a row that no function writes, until the test is over."""
        table = boto3.resource("dynamodb").Table(table_name)
        key = {"deliveryId": row.pop("delivery", f"{WORKSPACE}#{request.fresh('evt')}#alert")}
        table.put_item(Item={**key, **row})
        self.addCleanup(table.delete_item, Key=key)
        return key["deliveryId"]

    def slots(self):
        """Returns when the slots start that the resend has taken."""
        rows = deployed.deliveries.matching("begins_with(#owner, :resend)", {":resend": "resend/"})
        return {int(row["deliveryId"].removesuffix("#slot")) for row in rows}

    def assert_same(self, messages, rows):
        """Asserts that these alerts arrived in this order, with the bytes that their rows keep."""
        self.assertEqual(
            [(message.subject, message.text) for message in messages],
            [(row["message"]["Subject"], bodies(row)["default"]) for row in rows],
        )

    def test_three_alerts_that_nobody_heard_reach_a_subscriber_who_came_later(self):
        for subscription in subscriptions(deployed.topic_arn):
            boto3.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
        rows = [self.alert() for _ in range(3)]
        self.resend("--yes")
        self.assertEqual(self.status, 2, self.printed)
        self.assertIn(
            "The topic has no confirmed subscription, so nobody would get them. Subscribe somebody first", self.printed
        )
        self.assertNotIn("published  ", self.printed)

        inbox = Inbox(deployed.topic_arn)
        slots = self.slots()
        self.resend("--yes")
        self.assertEqual(self.status, 0, self.printed)
        slots = self.slots() - slots
        self.assertEqual((len(slots), {start % 200 for start in slots}), (3, {0}))
        messages = inbox.collect(expected=3)
        self.assert_same(sorted(messages, key=lambda message: self.printed.index(message.message_id)), rows)
        for row in rows:
            event = row["deliveryId"].split("#")[1]
            self.assertIn(event, [message.event["id"] for message in messages])
            self.assertRegex(self.printed, rf"Z  {row['deliveryId']}  {row['message']['Subject'][:11]}")
            self.assertRegex(self.printed, rf"published  {row['deliveryId']} as message [0-9a-f-]+\n")
            # It stays as the first publish left it.
            self.assertEqual(deployed.deliveries.row(row["deliveryId"]), row)
        self.assertIn("Confirmed subscriptions: 1 (sqs).\n", self.printed)
        self.assertIn("The pace is 5 alerts a second (AlertsPerSecond), so it takes about 1 s.", self.printed)
        self.assertTrue(self.printed.endswith("3 of 3 alerts were published again.\n"), self.printed)

    def test_the_pace_is_that_of_the_stack(self):
        for _ in range(3):
            self.alert()
        inbox = Inbox(deployed.topic_arn)

        def with_pace(text):
            return lambda parsed, **_: parsed["Stacks"][0]["Parameters"].append(
                {"ParameterKey": "AlertsPerSecond", "ParameterValue": text}
            )

        for text, number in (("1", 3), ("0", 0)):
            slots = self.slots()
            with hooked("after-call.cloudformation.DescribeStacks", with_pace(text)):
                self.resend("--yes")
            self.assertEqual(self.status, 0, self.printed)
            slots = self.slots() - slots
            self.assertEqual((len(slots), {start % 1000 for start in slots}), (number, {0} if number else set()))
            self.assertEqual("The pace is 1 alerts a second" in self.printed, text == "1")
        self.assertEqual(len(inbox.collect(expected=6)), 6)

    def test_an_event_is_found_by_its_id_with_every_fact_that_came_under_it(self):
        inbox, expected = Inbox(deployed.topic_arn), []
        ids = [request.fresh("evt"), f"{request.fresh('evt')}#50%~\u00e9", request.fresh("evt") + "x" * 225]
        for event_id in ids:
            # Two facts with one id, and one with an id that only begins like it.
            for lead, id_ in (("lead_1", event_id), ("lead_2", event_id), ("lead_3", f"{event_id}x")):
                event = change(request.fresh(lead), "OPPORTUNITY").with_event_id(id_)
                self.assertEqual(event.post(deployed.webhook_url).outcome(), "alerted")
                expected += [json.loads(event.body)["data"]["leadId"]] if id_ == event_id else []
        came = inbox.collect(expected=9)
        for event_id in ids:
            self.resend("--event", event_id, "--yes")
            self.assertEqual(self.status, 0, self.printed)
            self.assertIn("2 of 2 alerts were published again.", self.printed)
        again = inbox.collect(expected=6)
        self.assertCountEqual([message.event["subject"] for message in again], expected)
        self.assertLess({message.text for message in again}, {message.text for message in came})
        self.resend("--event", "evt_that_never_came", "--yes")
        self.assertEqual((self.status, self.printed), (1, "There is no published alert to send again.\n"))

    def test_what_is_not_published_or_cannot_be_read_is_said_and_not_sent(self):
        now = int(time.time() * 1000)
        message = {"Subject": "s", "Message": json.dumps({"default": "{}"}), "MessageStructure": "json"}
        published = {"state": "PUBLISHED", "publishedAt": now, "message": message}
        self.put(state="PENDING", pending="0", leaseUntil=now + 3_600_000, firstSeenAt=now, message=message)
        self.put(state="DEBOUNCED", firstSeenAt=now, message=message)
        self.put(state="PENDING", firstSeenAt=now - 86_400_000, message=message)  # before the period
        self.put(delivery="ws#lead#OPPORTUNITY#quiet", quietUntil=now)
        self.put(**{**published, "delivery": "ws#evt#status"})
        faults = {
            self.put(**{**published, "message": None}): "keeps no publish request",
            self.put(**{**published, "message": "text"}): "lacks one of Subject, Message, MessageStructure",
            self.put(**{**published, "message": {**message, "Subject": 7}}): "lacks one of Subject",
            self.put(**{**published, "publishedAt": "today"}): "does not say when it was published",
            self.put(**published | {"state": ["PENDING"], "firstSeenAt": now}): "its state is ['PENDING'], which",
            self.put(
                state="SENT", firstSeenAt=now, delivery="ws\x1b[2J#evt#alert"
            ): "its state is SENT, which this version",
        }
        self.resend("--yes")
        self.assertEqual(self.status, 1, self.printed)
        for delivery, fault in faults.items():
            delivery = delivery.replace("\x1b", r"\x1b")
            (line,) = [line for line in self.printed.splitlines() if delivery in line]
            self.assertTrue(line.startswith(f"Cannot be sent: {delivery}: ") and fault in line, line)
        self.assertIn("Left out: 1 pending, which the redrive publishes.\n", self.printed)
        self.assertIn("Left out: 1 debounced, because another alert was published for the same lead.\n", self.printed)
        self.assertTrue(self.printed.endswith("There is no published alert to send again.\n"), self.printed)
        # One that can be sent is sent all the same.
        row = self.alert()
        inbox = Inbox(deployed.topic_arn)
        self.resend("--yes")
        self.assertEqual(self.status, 1, self.printed)
        self.assert_same(inbox.collect(expected=1), [row])

    def test_it_asks_first(self):
        rows = [self.alert(), self.alert()]
        inbox = Inbox(deployed.topic_arn)
        self.resend()
        self.assertEqual(self.status, 2)
        self.assertIn("there is no terminal to ask on. YES=yes sends", self.printed)
        for answer in ("", "n", "yes please"):
            self.resend(terminal=answer)
            self.assertEqual((self.status, self.asked), (2, ["Send these 2 alerts again? [y/N] "]))
            self.assertTrue(self.printed.endswith("Nothing was sent.\n"), self.printed)
        self.assertEqual(inbox.receive(), [])
        self.resend(terminal="y")
        self.assertEqual(self.status, 0, self.printed)
        self.assert_same(sorted(inbox.collect(expected=2), key=lambda one: self.printed.index(one.message_id)), rows)

    def test_what_to_send_has_to_be_said_once(self):
        for arguments in ([], ["--since", "2h", "--event", "evt"], ["--since", "2 weeks"]):
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as ended:
                resend.main(["--stack", NAME, *arguments])
            self.assertEqual(ended.exception.code, 2)
            self.assertIn("Give either SINCE=2h", errors.getvalue())

    def test_a_publish_that_fails_is_not_repeated_and_stops_no_other(self):
        rows = [self.alert() for _ in range(3)]
        inbox = Inbox(deployed.topic_arn)
        sent = []

        def fail_once(request, **_):
            sent.append(request)
            return Broken(request.url, 503) if len(sent) == 2 else None

        with hooked("before-send.sns.Publish", fail_once):
            self.resend("--yes")
        self.assertEqual((self.status, len(sent)), (1, 3), self.printed)
        self.assertRegex(
            self.printed, rf"FAILED     {rows[1]['deliveryId']}: .*It is not known whether it took effect\.\n"
        )
        self.assertTrue(self.printed.endswith("2 of 3 alerts were published again. 1 was not.\n"), self.printed)
        self.assertEqual(len(inbox.collect(expected=2)), 2)

    def test_ctrl_c_stops_it_between_two_alerts_and_says_so(self):
        rows = [self.alert() for _ in range(3)]
        inbox = Inbox(deployed.topic_arn)
        sent = []

        def interrupt(request, **_):
            sent.append(request)
            if len(sent) == 2:
                raise KeyboardInterrupt

        with hooked("before-send.sns.Publish", interrupt):
            self.resend("--yes")
        self.assertEqual(self.status, 130, self.printed)
        ended = f"Whether the topic took {rows[1]['deliveryId']} is not known.\n"
        self.assertTrue(
            self.printed.endswith(f"\nStopped. 1 of 3 alerts was published again. 2 were not. {ended}"), self.printed
        )
        self.assertEqual(len(inbox.collect(expected=1)), 1)

    def test_who_may_not_do_it_is_told_what_to_grant(self):
        Inbox(deployed.topic_arn)
        self.alert()
        self.alert()
        for action, printed in (
            ("cloudformation:DescribeStacks", ""),
            ("dynamodb:Scan", ""),
            ("dynamodb:UpdateItem", "0 of 2 alerts were published again. 2 were not."),
        ):
            with self.subTest(action), somebody_who_may_not({"Effect": "Deny", "Action": action, "Resource": "*"}):
                self.resend("--yes")
                self.assertIn(f"Grant {action} to whom your shell is logged in as.", self.printed)
                self.assertIn(printed, self.printed)
                self.assertNotEqual(self.status, 0)
        # Every other publish would be refused too.
        with refusing(deployed.topic_arn):
            self.resend("--yes")
        self.assertEqual((self.status, self.printed.count("FAILED")), (1, 1), self.printed)
        self.assertRegex(self.printed, "Grant (?i:sns):Publish to")
        # Who may not see the subscriptions can still send.
        with somebody_who_may_not({"Effect": "Deny", "Action": "sns:ListSubscriptionsByTopic", "Resource": "*"}):
            self.resend("--yes")
        self.assertEqual(self.status, 0, self.printed)
        self.assertIn("so it is not known who is subscribed", self.printed)

    def test_a_stack_that_is_none(self):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as ended:
            resend.main(["--stack", "elsewhere", "--since", "2h"])
        self.assertEqual(ended.exception.code, 2)
        self.assertIn("There is no elsewhere here", errors.getvalue())
        self.resend("--stream", "--yes")
        self.assertEqual(self.status, 2)
        self.assertIn("The lead status stream of sendpilot-opportunity-alerts is off", self.printed)


class Broken(AWSResponse):
    """SNS's answer if SNS itself fails."""

    def __init__(self, url, status):
        body = (
            b"<ErrorResponse><Error><Code>ServiceUnavailable</Code><Message>try later</Message></Error></ErrorResponse>"
        )
        super().__init__(url, status, {}, io.BytesIO(body))
        self._content = body


if __name__ == "__main__":
    unittest.main()
