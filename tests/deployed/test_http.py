"""The deployed template, end to end: real requests to the real binary, on a local AWS that enforces IAM."""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from faults import refusing
from ops import request
from ops.signature import DOCUMENTED, SAMPLE_SECRET, STANDARD, SVIX, fresh_secret
from ops.stack import NAME

EVENTS = Path("events")
# The table of the sample requests: the name of each, and the status of its answer.
SAMPLES = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+)", (EVENTS / "README.md").read_text(), re.MULTILINE)


@pytest.fixture
def inbox(deployed, open_inbox):
    return open_inbox(deployed.topic_arn)


@pytest.fixture
def row_of(deployed):
    def row_of(event_id, kind="alert"):
        return deployed.deliveries.row(f"ws_abc123xyz#{event_id}#{kind}")

    return row_of


def fresh(name):
    """Returns the event of a file under a new id."""
    return request.read(EVENTS / f"{name}.json").with_event_id(request.fresh("evt"))


def configuration(logical_id):
    """Returns the configuration of a deployed function."""
    described = boto3.client("cloudformation").describe_stack_resource(StackName=NAME, LogicalResourceId=logical_id)
    name = described["StackResourceDetail"]["PhysicalResourceId"]
    found = boto3.client("lambda").get_function_configuration(FunctionName=name)
    return {key: value for key, value in found.items() if key != "ResponseMetadata"}


def assert_answer(answer, status, outcome):
    assert (answer.status, answer.outcome()) == (status, outcome), answer.body


def assert_alerts(inbox, *event_ids):
    """Asserts that exactly one alert arrived for each of these events, and no other alert."""
    alerts = inbox.collect(expected=len(event_ids))
    assert Counter(alert.event["id"] for alert in alerts) == Counter(event_ids)
    return alerts


@pytest.mark.parametrize("form", [SVIX, STANDARD, DOCUMENTED])
@pytest.mark.parametrize("name", ["opportunity", "opportunity-lead-updated"])
def test_each_event_name_and_signature_form_alerts(name, form, post, inbox):
    event = replace(fresh(name), form=form)
    assert_answer(post(event), 200, "alerted")
    assert_alerts(inbox, event.event_id())


def test_the_table_lists_every_sample_request():
    assert {name for name, _ in SAMPLES} == {path.stem for path in EVENTS.glob("*.json")}


@pytest.mark.parametrize(("name", "status"), SAMPLES)
def test_a_sample_request_is_answered_as_the_table_says(name, status, post, inbox):
    event = fresh(name)
    answer = post(event)
    assert answer.status == int(status), answer.body
    assert_alerts(inbox, *[event.event_id() or event.message_id] * (answer.outcome() == "alerted"))


def test_a_repeated_event_is_a_duplicate(post, inbox):
    event = fresh("opportunity")
    assert_answer(post(event), 200, "alerted")
    assert_answer(post(event), 200, "duplicate")
    assert_answer(post(event), 200, "duplicate")
    assert_alerts(inbox, event.event_id())


def test_fifty_requests_at_once_make_one_alert(post, inbox):
    event = fresh("opportunity")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, [event] * 50))
    said = Counter((answer.status, answer.outcome()) for answer in answers)
    assert said.pop((200, "alerted"), 0) == 1
    assert said.keys() <= {(200, "duplicate"), (409, "in_progress")}
    assert_alerts(inbox, event.event_id())


def test_another_status_is_ignored(post, inbox, row_of):
    event = fresh("reply-received")
    assert_answer(post(event), 200, "ignored")
    for kind in ("alert", "status"):
        assert row_of(event.event_id(), kind) is None
    assert_alerts(inbox)


@pytest.mark.parametrize("name", ["forged", "unsigned"])
def test_a_request_without_the_secret_is_refused(name, post, inbox, row_of):
    event = fresh(name)
    assert_answer(post(event), 401, "unauthorized")
    assert row_of(event.event_id()) is None
    assert_alerts(inbox)


def test_a_rotation_needs_one_put_and_rejects_no_genuine_event(deployed, post, inbox, cleanup):
    old, new = SAMPLE_SECRET, fresh_secret()
    before = configuration("WebhookFunction")
    sent = []

    def assert_all_alert(*signed_with):
        events = [(fresh("opportunity"), secret) for secret in signed_with * 4]
        # Concurrent events, because several processes must fetch the new secret.
        with ThreadPoolExecutor(len(events)) as pool:
            for answer in pool.map(lambda event: post(*event), events):
                assert_answer(answer, 200, "alerted")
        sent.extend(event.event_id() for event, _ in events)

    assert_answer(post(fresh("opportunity"), new), 401, "unauthorized")
    assert_all_alert(old)
    deployed.secret.put(new)
    # The other tests sign with the old secret, which is the previous version until then.
    cleanup.callback(deployed.secret.put, old)
    assert_all_alert(new)
    assert_all_alert(old, new)
    assert_all_alert(new)
    assert_alerts(inbox, *sent)
    assert configuration("WebhookFunction") == before


def test_only_secrets_manager_has_the_secret(deployed):
    cloudformation = boto3.client("cloudformation")
    shown = [
        cloudformation.describe_stacks(StackName=NAME),
        cloudformation.get_template(StackName=NAME, TemplateStage="Processed"),
        configuration("WebhookFunction"),
        configuration("RedriveFunction"),
    ]
    assert "WEBHOOK_SECRET_ID" in str(shown)
    assert SAMPLE_SECRET not in str(shown)


def test_an_unreadable_request_is_refused(post, inbox):
    assert_answer(post(fresh("malformed")), 400, "malformed")
    assert_answer(post(fresh("lead-without-id")), 400, "malformed")
    oversized = replace(fresh("opportunity"), body=b" " * (256 * 1024 + 1))
    assert_answer(post(oversized), 413, "too_large")
    assert_alerts(inbox)


def test_there_is_only_one_route(deployed):
    assert request.exchange("GET", deployed.webhook_url).status == 404
    assert request.exchange("POST", f"{deployed.webhook_url}/more", b"{}").status == 404


def test_the_row_records_the_whole_delivery(deployed, post, inbox, row_of):
    event = fresh("opportunity")
    post(event)
    (alert,) = assert_alerts(inbox, event.event_id())
    row = row_of(event.event_id())
    assert row.keys() == {
        *("deliveryId", "state", "owner", "leaseUntil", "attempts", "firstSeenAt", "message", "contentSha256"),
        *("publishedAt", "messageId", "expiresAt"),
    }
    assert (row["state"], row["attempts"], row["messageId"]) == ("PUBLISHED", 1, alert.message_id)
    assert row["firstSeenAt"] <= row["publishedAt"]
    assert row["expiresAt"] == row["publishedAt"] // 1000 + 30 * 24 * 60 * 60
    published = json.loads(row["message"]["Message"])
    assert (alert.subject, alert.event) == (row["message"]["Subject"], json.loads(published["default"]))
    assert deployed.deliveries.pending() == []


def test_an_alert_that_the_topic_refuses_stays_pending_until_a_retry(deployed, post, inbox, row_of):
    event = fresh("opportunity")
    with refusing(deployed.topic_arn):
        answer = post(event)
        assert_answer(answer, 503, "unavailable")
        assert "retry-after" in answer.headers
        row = row_of(event.event_id())
        assert row["state"] == "PENDING"
        assert "expiresAt" not in row
        assert "AuthorizationError" in row["lastError"]
        assert len(deployed.deliveries.pending()) == 1
    assert_answer(post(event), 200, "alerted")
    assert row_of(event.event_id())["attempts"] == 2
    assert deployed.deliveries.pending() == []
    assert_alerts(inbox, event.event_id())


# The last test, because the schedule starts a minute after the deployment.
def test_the_redrive_runs_every_minute(deployed, post, inbox, cleanup):
    event = fresh("opportunity")
    with refusing(deployed.topic_arn):
        post(event)
    deployed.redrive.resume()
    cleanup.callback(deployed.redrive.pause)
    (alert,) = inbox.collect(expected=1, patience=100)
    assert alert.event["id"] == event.event_id()
