"""The command `forget` against the deployed template: it deletes a lead's data, and nothing else changes."""

import contextlib
import io
import json
import time

import boto3
import pytest

from faults import hooked, refusing, without_permission
from local_aws.journey import change
from ops import request
from ops.__main__ import main
from ops.deliveries import is_forgotten
from ops.stack import NAME

WORKSPACE = "ws_abc123xyz"


def ran(*arguments):
    """Runs a command. Returns its output and exit status."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        main([*arguments, NAME])
    text = printed.getvalue()
    assert all(" " <= character <= "~" for character in text.replace("\n", "")), text
    return text, ended.value.code


@pytest.fixture
def lead():
    return request.fresh("lead")


@pytest.fixture
def table(table_name):
    return boto3.resource("dynamodb").Table(table_name)


@pytest.fixture
def put(table, cleanup):
    """Adds a row that no function writes in this test, until the test is over. Returns its key."""

    def put(delivery_id, **row):
        table.put_item(Item={"deliveryId": delivery_id, **row})
        cleanup.callback(table.delete_item, Key={"deliveryId": delivery_id})
        return delivery_id

    return put


def rows_about(deliveries, lead):
    """Returns all rows with this text in any attribute. `forget` finds rows in another way."""
    return [
        row for row in deliveries.matching("attribute_exists(deliveryId)", {}) if lead in json.dumps(row, default=str)
    ]


def test_it_deletes_all_data_of_the_lead_and_a_retry_is_still_a_duplicate(deployed, post, lead, put, open_inbox):
    inbox, other = open_inbox(deployed.topic_arn), change(f"{lead}x", "OPPORTUNITY")
    events = [change(lead, "OPPORTUNITY"), change(lead, "OPPORTUNITY")]
    for event in (*events, other):
        assert post(event).outcome() == "alerted"
    inbox.collect(expected=3)
    now = int(time.time() * 1000)
    put(f"{WORKSPACE}#{lead}#reply", reply="Let's talk", repliedAt=now)
    put(f"{WORKSPACE}#{lead}#OPPORTUNITY#quiet", holder=f"{WORKSPACE}#evt#alert", quietUntil=now)
    kept = put(f"{WORKSPACE}#{lead}x#reply", reply="Who is this?", repliedAt=now)

    before = rows_about(deployed.deliveries, lead)
    text, status = ran("forget", "--lead", lead, "--dry-run")
    assert (status, rows_about(deployed.deliveries, lead)) == (0, before), text
    assert text.count("\nwould empty ") + text.startswith("would empty ") == 2
    text, status = ran("forget", "--lead", lead)
    assert status == 0, text
    assert "\n2 rows were deleted. 2 deliveries lost their message.\n" in text
    left = {row["deliveryId"] for row in rows_about(deployed.deliveries, lead)}
    assert left == {kept, f"{WORKSPACE}#{other.event_id()}#alert"}
    for event in events:
        row = deployed.deliveries.row(f"{WORKSPACE}#{event.event_id()}#alert")
        assert is_forgotten(row) and row["state"] == "PUBLISHED"
        assert post(event).outcome() == "duplicate"
    deployed.redrive.run()
    assert inbox.collect(expected=0) == []
    assert ran("forget", "--lead", lead)[0].startswith(f"The table stores nothing about the lead {lead}.\n")


def test_resend_leaves_a_forgotten_alert_out(deployed, post, lead, open_inbox):
    inbox, event = open_inbox(deployed.topic_arn), change(lead, "OPPORTUNITY")
    assert post(event).outcome() == "alerted"
    inbox.collect(expected=1)
    assert ran("forget", "--lead", lead)[1] == 0
    text, status = ran("resend", "--event", event.event_id(), "--yes")
    assert status == 1
    assert text == (
        "Left out: 1 without a message, because the command `forget` removed it.\n"
        "There is no published alert to send again.\n"
    )


def test_a_pending_alert_stays_until_it_is_published(deployed, post, lead, open_inbox):
    inbox, event = open_inbox(deployed.topic_arn), change(lead, "OPPORTUNITY")
    with refusing(deployed.topic_arn):
        assert post(event).status == 503
    text, status = ran("forget", "--lead", lead)
    assert status == 1
    assert "kept          " in text and "pending, because the message is still to be published\n" in text
    deployed.redrive.run()
    (alert,) = inbox.collect(expected=1)
    assert alert.event["subject"] == lead
    assert ran("forget", "--lead", lead)[1] == 0
    assert rows_about(deployed.deliveries, lead) == []


def test_a_debounce_lock_stays_until_it_is_over(deployed, lead, put):
    row = {"holder": f"{WORKSPACE}#evt#alert", "quietUntil": int(time.time() * 1000) + 60_000}
    key = put(f"{WORKSPACE}#{lead}#OPPORTUNITY#quiet", **row)
    text, status = ran("forget", "--lead", lead)
    assert status == 1
    assert f"kept          {key}: the debounce lock suppresses alerts until " in text
    assert deployed.deliveries.row(key)["holder"] == row["holder"]


def test_a_lock_that_was_taken_meanwhile_stays(deployed, lead, put, table):
    now = int(time.time() * 1000)
    row = {"holder": f"{WORKSPACE}#evt#alert", "quietUntil": now}
    key = put(f"{WORKSPACE}#{lead}#OPPORTUNITY#quiet", **row)
    gone = put(f"{WORKSPACE}#{lead}#DONE#quiet", **row)

    def take(**_):
        table.put_item(Item={"deliveryId": key, **row, "quietUntil": now + 60_000})
        table.delete_item(Key={"deliveryId": gone})

    with hooked("after-call.dynamodb.Scan", take):
        text, status = ran("forget", "--lead", lead)
    assert status == 1
    assert f"kept          {key}: another alert has just taken the debounce lock\n" in text
    assert f"deleted       {gone}: " in text


def test_it_deletes_only_from_the_given_workspace(deployed, lead, put):
    keys = [put(f"{workspace}#{lead}#reply", reply="x") for workspace in ("ws_1", "ws_2")]
    assert ran("forget", "--lead", lead, "--workspace", "ws_1")[1] == 0
    assert [deployed.deliveries.row(key) is None for key in keys] == [True, False]


@pytest.mark.parametrize("action", ["dynamodb:Scan", "dynamodb:UpdateItem", "dynamodb:DeleteItem"])
def test_it_says_which_permission_is_missing(action, deployed, post, lead, put, open_inbox):
    inbox = open_inbox(deployed.topic_arn)
    assert post(change(lead, "OPPORTUNITY")).outcome() == "alerted"
    inbox.collect(expected=1)
    put(f"{WORKSPACE}#{lead}#reply", reply="x")
    with without_permission({"Effect": "Deny", "Action": action, "Resource": "*"}):
        text, status = ran("forget", "--lead", lead)
    assert status == 2
    assert f"Grant {action} to the identity that your shell is logged in as." in text
    assert ran("forget", "--lead", lead)[1] == 0


@pytest.mark.parametrize("arguments", [(), ("--lead", "")])
def test_it_needs_a_lead(arguments, deployed):
    text, status = ran("forget", *arguments)
    assert status == 2
    assert text.startswith("Give the lead's id in SendPilot by --lead")


# The last test, because a later test would have to deploy the defaults again.
def test_it_deletes_a_reply_and_an_alert_that_shows_it(deployed, post, lead, open_inbox):
    deployed.redeploy(RememberReplies="yes")
    inbox = open_inbox(deployed.topic_arn)
    reply = request.sample("reply").renewed().with_data(leadId=lead)
    assert post(reply).outcome() == "remembered"
    assert post(change(lead, "OPPORTUNITY")).outcome() == "alerted"
    (alert,) = inbox.collect(expected=1)
    said = alert.event["data"]["lastReply"]["text"]
    assert len([row for row in rows_about(deployed.deliveries, lead) if said[:20] in json.dumps(row, default=str)]) == 2
    text, status = ran("forget", "--lead", lead)
    assert (status, said[:20] in text) == (0, False), text
    assert rows_about(deployed.deliveries, lead) == []
