"""The command `resend` against the deployed template: it sends alerts to new subscribers, unchanged and paced."""

import contextlib
import io
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from unittest import mock

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from faults import hooked, refusing, without_permission
from local_aws.journey import change
from ops import request
from ops.__main__ import main
from ops.deliveries import bodies
from ops.stack import NAME
from ops.subscribers import subscriptions

WORKSPACE = "ws_abc123xyz"


@dataclass
class Ran:
    """The result of one `resend`."""

    printed: str
    status: int
    asked: list[str]


@pytest.fixture
def resend(deployed):
    """Runs `resend` for the alerts of this test. `terminal` is the answer to its question."""
    # The alerts of other tests must be older.
    time.sleep(0.002)
    began = datetime.now(timezone.utc).isoformat(timespec="milliseconds")

    def resend(*arguments, since=began, terminal=None):
        which = [] if "--event" in arguments else ["--since", since]
        printed, answer = io.StringIO(), mock.Mock(return_value=terminal)
        stdin = mock.Mock(isatty=lambda: terminal is not None)
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            mock.patch("builtins.input", answer),
            mock.patch("sys.stdin", stdin),
            pytest.raises(SystemExit) as ended,
        ):
            main(["resend", *which, *arguments, NAME])
        ran = Ran(printed.getvalue(), ended.value.code, [call.args[0] for call in answer.mock_calls])
        assert all(" " <= character <= "~" for character in ran.printed.replace("\n", "")), ran.printed
        return ran

    return resend


@pytest.fixture
def alert(deployed, post):
    """Posts an opportunity, and returns the row of its published alert."""

    def alert():
        event = change(request.fresh("lead"), "OPPORTUNITY")
        answer = post(event)
        assert (answer.status, answer.outcome()) == (200, "alerted")
        return deployed.deliveries.row(f"{WORKSPACE}#{event.event_id()}#alert")

    return alert


@pytest.fixture
def put(table_name, cleanup):
    """Adds a row that no function writes, until the test is over. Returns its key."""

    def put(**row):
        table = boto3.resource("dynamodb").Table(table_name)
        key = {"deliveryId": row.pop("delivery", f"{WORKSPACE}#{request.fresh('evt')}#alert")}
        table.put_item(Item={**key, **row})
        cleanup.callback(table.delete_item, Key=key)
        return key["deliveryId"]

    return put


@pytest.fixture
def slots(deployed):
    """Returns the starts of the slots that `resend` has taken."""

    def slots():
        rows = deployed.deliveries.matching("begins_with(#owner, :resend)", {":resend": "resend/"})
        return {int(row["deliveryId"].removesuffix("#slot")) for row in rows}

    return slots


def assert_same(messages, rows):
    """Asserts that these alerts arrived in this order, with the same bytes as in their rows."""
    assert [(message.subject, message.text) for message in messages] == [
        (row["message"]["Subject"], bodies(row)["default"]) for row in rows
    ]


class Broken(AWSResponse):
    """The answer of a failing SNS."""

    def __init__(self, url, status):
        body = (
            b"<ErrorResponse><Error><Code>ServiceUnavailable</Code><Message>try later</Message></Error></ErrorResponse>"
        )
        super().__init__(url, status, {}, io.BytesIO(body))
        self._content = body


def test_alerts_without_a_subscriber_reach_a_later_one(deployed, resend, alert, slots, open_inbox):
    for subscription in subscriptions(deployed.topic_arn):
        boto3.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    rows = [alert() for _ in range(3)]
    ran = resend("--yes")
    assert ran.status == 2, ran.printed
    assert " has no confirmed subscription, so nobody would get the alerts. First subscribe an address" in ran.printed
    assert "published  " not in ran.printed

    inbox = open_inbox(deployed.topic_arn)
    before = slots()
    ran = resend("--yes")
    assert ran.status == 0, ran.printed
    taken = slots() - before
    assert (len(taken), {start % 200 for start in taken}) == (3, {0})
    messages = inbox.collect(expected=3)
    assert_same(sorted(messages, key=lambda message: ran.printed.index(message.message_id)), rows)
    for row in rows:
        event = row["deliveryId"].split("#")[1]
        assert event in [message.event["id"] for message in messages]
        assert re.search(rf"Z  {row['deliveryId']}  {row['message']['Subject'][:11]}", ran.printed)
        assert re.search(rf"published  {row['deliveryId']} as message [0-9a-f-]+\n", ran.printed)
        # `resend` does not change the row.
        assert deployed.deliveries.row(row["deliveryId"]) == row
    assert "Confirmed subscriptions: 1 (sqs).\n" in ran.printed
    assert "The pace is 5 alerts a second (AlertsPerSecond), so the resend takes about 1 s." in ran.printed
    assert ran.printed.endswith("3 of 3 alerts were published again.\n"), ran.printed


def test_it_keeps_the_pace_of_the_stack(deployed, resend, alert, slots, open_inbox):
    for _ in range(3):
        alert()
    inbox = open_inbox(deployed.topic_arn)

    def with_pace(text):
        return lambda parsed, **_: parsed["Stacks"][0]["Parameters"].append(
            {"ParameterKey": "AlertsPerSecond", "ParameterValue": text}
        )

    for text, number in (("1", 3), ("0", 0)):
        before = slots()
        with hooked("after-call.cloudformation.DescribeStacks", with_pace(text)):
            ran = resend("--yes")
        assert ran.status == 0, ran.printed
        taken = slots() - before
        assert (len(taken), {start % 1000 for start in taken}) == (number, {0} if number else set())
        assert ("The pace is 1 alerts a second" in ran.printed) == (text == "1")
    assert len(inbox.collect(expected=6)) == 6


def test_it_finds_every_fact_with_the_same_event_id(deployed, post, resend, open_inbox):
    inbox, expected = open_inbox(deployed.topic_arn), []
    ids = [request.fresh("evt"), f"{request.fresh('evt')}#50%~\u00e9", request.fresh("evt") + "x" * 225]
    for event_id in ids:
        # Two facts with the same id, and a third with an id that only has the same beginning.
        for lead, id_ in (("lead_1", event_id), ("lead_2", event_id), ("lead_3", f"{event_id}x")):
            event = change(request.fresh(lead), "OPPORTUNITY").with_event_id(id_)
            assert post(event).outcome() == "alerted"
            expected += [json.loads(event.body)["data"]["leadId"]] if id_ == event_id else []
    came = inbox.collect(expected=9)
    for event_id in ids:
        ran = resend("--event", event_id, "--yes")
        assert ran.status == 0, ran.printed
        assert "2 of 2 alerts were published again." in ran.printed
    again = inbox.collect(expected=6)
    assert sorted(message.event["subject"] for message in again) == sorted(expected)
    assert {message.text for message in again} < {message.text for message in came}
    ran = resend("--event", "evt_that_never_came", "--yes")
    assert (ran.status, ran.printed) == (1, "There is no published alert to send again.\n")


def test_it_reports_and_leaves_out_what_it_cannot_send(deployed, resend, alert, put, open_inbox):
    now = int(time.time() * 1000)
    message = {"Subject": "s", "Message": json.dumps({"default": "{}"}), "MessageStructure": "json"}
    published = {"state": "PUBLISHED", "publishedAt": now, "message": message}
    put(state="PENDING", pending="0", leaseUntil=now + 3_600_000, firstSeenAt=now, message=message)
    put(state="DEBOUNCED", firstSeenAt=now, message=message)
    put(state="PENDING", firstSeenAt=now - 86_400_000, message=message)  # before the period
    put(delivery="ws#lead#OPPORTUNITY#quiet", quietUntil=now)
    put(**{**published, "delivery": "ws#evt#status"})
    faults = {
        put(**{**published, "message": None}): "keeps no publish request",
        put(**{**published, "message": "text"}): "lacks one of Subject, Message, MessageStructure",
        put(**{**published, "message": {**message, "Subject": 7}}): "lacks one of Subject",
        put(**{**published, "publishedAt": "today"}): "does not say when it was published",
        put(**published | {"state": ["PENDING"], "firstSeenAt": now}): "its state is ['PENDING'], which",
        put(state="SENT", firstSeenAt=now, delivery="ws\x1b[2J#evt#alert"): "its state is SENT, which this version",
    }
    ran = resend("--yes")
    assert ran.status == 1, ran.printed
    for delivery, fault in faults.items():
        delivery = delivery.replace("\x1b", r"\x1b")
        (line,) = [line for line in ran.printed.splitlines() if delivery in line]
        assert line.startswith(f"Cannot be sent: {delivery}: ") and fault in line, line
    assert "Left out: 1 pending, which the redrive publishes.\n" in ran.printed
    assert "Left out: 1 debounced, because another alert was published for the same lead and status.\n" in ran.printed
    assert ran.printed.endswith("There is no published alert to send again.\n"), ran.printed
    # It still sends a valid alert.
    row = alert()
    inbox = open_inbox(deployed.topic_arn)
    ran = resend("--yes")
    assert ran.status == 1, ran.printed
    assert_same(inbox.collect(expected=1), [row])


def test_it_asks_before_it_sends(deployed, resend, alert, open_inbox):
    rows = [alert(), alert()]
    inbox = open_inbox(deployed.topic_arn)
    ran = resend()
    assert ran.status == 2
    assert "there is no terminal to ask for confirmation. To send without it, add --yes" in ran.printed
    for answer in ("", "n", "yes please"):
        ran = resend(terminal=answer)
        assert (ran.status, ran.asked) == (2, ["Send these 2 alerts again? [y/N] "])
        assert ran.printed.endswith("Nothing was sent.\n"), ran.printed
    assert inbox.receive() == []
    ran = resend(terminal="y")
    assert ran.status == 0, ran.printed
    assert_same(sorted(inbox.collect(expected=2), key=lambda one: ran.printed.index(one.message_id)), rows)


@pytest.mark.parametrize("arguments", [[], ["--since", "2h", "--event", "evt"]])
def test_exactly_one_of_since_and_event_is_given(arguments, deployed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["resend", *arguments, NAME])
    assert ended.value.code == 2
    assert "Give either --since 2h" in capsys.readouterr().err


def test_a_failed_publish_is_not_retried_and_stops_no_other(deployed, resend, alert, open_inbox):
    rows = [alert() for _ in range(3)]
    inbox = open_inbox(deployed.topic_arn)
    sent = []

    def fail_once(request, **_):
        sent.append(request)
        return Broken(request.url, 503) if len(sent) == 2 else None

    with hooked("before-send.sns.Publish", fail_once):
        ran = resend("--yes")
    assert (ran.status, len(sent)) == (1, 3), ran.printed
    assert re.search(
        rf"FAILED     {rows[1]['deliveryId']}: .*It is not known whether SNS published the message\.\n", ran.printed
    )
    assert ran.printed.endswith("2 of 3 alerts were published again. 1 was not.\n"), ran.printed
    assert len(inbox.collect(expected=2)) == 2


def test_ctrl_c_stops_it_between_two_alerts(deployed, resend, alert, open_inbox):
    rows = [alert() for _ in range(3)]
    inbox = open_inbox(deployed.topic_arn)
    sent = []

    def interrupt(request, **_):
        sent.append(request)
        if len(sent) == 2:
            raise KeyboardInterrupt

    with hooked("before-send.sns.Publish", interrupt):
        ran = resend("--yes")
    assert ran.status == 130, ran.printed
    ended = f"It is not known whether SNS published {rows[1]['deliveryId']}.\n"
    assert ran.printed.endswith(f"\nStopped. 1 of 3 alerts was published again. 2 were not. {ended}"), ran.printed
    assert len(inbox.collect(expected=1)) == 1


@pytest.mark.parametrize(
    ("action", "printed"),
    [
        ("cloudformation:DescribeStacks", ""),
        ("dynamodb:Scan", ""),
        ("dynamodb:UpdateItem", "0 of 2 alerts were published again. 2 were not."),
    ],
)
def test_it_says_which_permission_is_missing(action, printed, deployed, resend, alert, open_inbox):
    open_inbox(deployed.topic_arn)
    alert()
    alert()
    with without_permission({"Effect": "Deny", "Action": action, "Resource": "*"}):
        ran = resend("--yes")
    assert f"Grant {action} to the identity that your shell is logged in as." in ran.printed
    assert printed in ran.printed
    assert ran.status != 0


def test_it_stops_if_the_topic_refuses_every_publish(deployed, resend, alert, open_inbox):
    open_inbox(deployed.topic_arn)
    alert()
    alert()
    with refusing(deployed.topic_arn):
        ran = resend("--yes")
    assert (ran.status, ran.printed.count("FAILED")) == (1, 1), ran.printed
    assert re.search("Grant (?i:sns):Publish to", ran.printed)


def test_it_sends_without_the_permission_to_list_subscriptions(deployed, resend, alert, open_inbox):
    open_inbox(deployed.topic_arn)
    alert()
    alert()
    with without_permission({"Effect": "Deny", "Action": "sns:ListSubscriptionsByTopic", "Resource": "*"}):
        ran = resend("--yes")
    assert ran.status == 0, ran.printed
    assert "so the topic's subscribers are not known" in ran.printed


def test_it_needs_an_existing_stack(deployed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["resend", "elsewhere", "--since", "2h"])
    assert ended.value.code == 2
    assert "There is no stack elsewhere here" in capsys.readouterr().err


def test_resending_stream_messages_needs_a_stream(resend):
    ran = resend("--stream", "--yes")
    assert ran.status == 2
    assert "The lead status stream of sendpilot-opportunity-alerts is off" in ran.printed
