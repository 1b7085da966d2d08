"""The deployed reconciliation: it finds leads whose webhook never came, and alerts each once.

SendPilot's API is a stand-in. The local AWS enforces IAM, so the functions have the permissions that
they need.
"""

import contextlib
import io
import json
import re
from datetime import datetime, timedelta, timezone
from functools import partial

import boto3
import pytest

from examples import eventually
from faults import refusing
from local_aws.details import CAMPAIGN, parameters
from local_aws.missed import said
from local_aws.scheduled import FunctionFailed
from local_aws.sendpilot_api import SendPilotApi
from ops import request
from ops.__main__ import main
from ops.stack import NAME

HOUR = timedelta(hours=1)
PERSON = {"firstName": "Mia", "lastName": "Moe", "title": "Head of Purchasing", "company": "Sample Corp."}


def ago(time):
    return datetime.now(timezone.utc) - time


def ran(*arguments):
    """Runs a command on the stack. Returns its output and exit status."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        main([*arguments, NAME])
    return printed.getvalue(), ended.value.code


def doctor():
    """Returns the doctor's verdict on the reconciliation, and the finding."""
    text, _ = ran("doctor")
    [found] = re.findall(r"^(\S.{11})reconciliation: (.+)$", text, re.MULTILINE)
    return found[0].strip(), found[1]


@pytest.fixture(scope="module")
def api():
    with SendPilotApi() as api:
        api.put_campaign(CAMPAIGN)
        yield api


@pytest.fixture(scope="module")
def reconciled(deployed, api):
    """The template with the reconciliation, which runs only if a test invokes it."""
    deployed.redeploy(ReconcileMinutes="60", **parameters(api))
    deployed.api_key.put(api.key)
    deployed.reconciliation.pause()
    return deployed


@pytest.fixture(scope="module")
def run(reconciled):
    """Runs the reconciliation, and returns the report in a few words. The first run makes the baseline."""
    return lambda **payload: said(reconciled.reconciliation.run(payload))


@pytest.fixture
def inbox(reconciled, open_inbox):
    return open_inbox(reconciled.topic_arn)


@pytest.fixture
def put_lead(api, cleanup):
    """Gives a new lead to SendPilot's API until the test is over, and returns its id."""

    def put_lead(status="OPPORTUNITY", updated=HOUR, campaign=CAMPAIGN["id"], **members):
        lead = {"id": request.fresh("lead"), "campaignId": campaign, "status": status, **PERSON, **members}
        api.put_lead({**lead, "updatedAt": request.timestamp(ago(updated))})
        cleanup.callback(api.leads.pop, lead["id"])
        return lead["id"]

    return put_lead


@pytest.fixture
def change_settings(api, cleanup):
    """Changes settings and answers of SendPilot's API until the test is over."""

    def change_settings(prefix=None, **changes):
        if prefix:
            cleanup.callback(api.clear)
            api.answer(prefix, **changes)
        else:
            cleanup.callback(api.set, **{name: getattr(api, name) for name in changes})
            api.set(**changes)

    return change_settings


def opportunity(lead, updated):
    """Returns the webhook of a lead that became an opportunity this time ago."""
    return request.sample("opportunity").renewed().at(ago(updated)).with_data(leadId=lead, campaignId=CAMPAIGN["id"])


def environment_of(logical_id):
    """Returns the variables of a function, by its name in the template."""
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=physical(logical_id))
    return configuration["Environment"]["Variables"]


def change_environment(logical_id, variables):
    """Restarts a function with these variables."""
    changed = {"Environment": {"Variables": variables}}
    boto3.client("lambda").update_function_configuration(FunctionName=physical(logical_id), **changed)


def physical(logical_id):
    asked = {"StackName": NAME, "LogicalResourceId": logical_id}
    found = boto3.client("cloudformation").describe_stack_resource(**asked)
    return found["StackResourceDetail"]["PhysicalResourceId"]


def rows_but_the_run(deployed):
    """Returns all rows by key, except the row with the reconciliation's own progress."""
    rows = {row["deliveryId"]: row for row in deployed.deliveries.matching("attribute_exists(deliveryId)", {})}
    del rows[f"{deployed.reconciliation.name}#run"]
    return rows


# The first test, because the other tests need the baseline. The doctor reports missed leads for a
# day.
def test_the_first_run_is_the_baseline_and_alerts_nobody(reconciled, run, inbox, put_lead):
    for _ in range(120):
        put_lead()
    assert said(reconciled.reconciliation.run({"dryRun": True})) == "complete: baseline 120"
    assert run() == "complete: baseline 120"
    assert run() == "complete"
    assert inbox.collect(expected=0) == []
    text, status = ran("reconcile")
    assert status == 0, text
    assert text.startswith("1 campaign read with 3 requests. 120 leads have the status OPPORTUNITY.\n")
    verdict, what = doctor()
    assert verdict == "ok", what
    assert re.search(r"read 1 campaigns and 120 leads; none missed in the last 24 hours$", what), what


def test_a_missed_lead_is_alerted_once_and_its_late_webhook_is_debounced(reconciled, run, inbox, post, put_lead):
    lead = put_lead()
    reply = request.sample("reply").with_event_id(request.fresh("evt")).at(ago(2 * HOUR))
    assert post(reply.with_data(leadId=lead)).outcome() == "remembered"
    assert run() == "complete: missed 1, alerted 1"
    [alert] = inbox.collect(expected=1)
    data = alert.event["data"]
    assert (data["leadId"], data["newStatus"], data["foundBy"]) == (lead, "OPPORTUNITY", "reconciliation")
    assert (data["lead"], data["campaignName"]) == (PERSON, CAMPAIGN["name"])
    assert data["lastReply"]["text"].startswith("Sounds interesting.")
    assert not {"previousStatus", "changedBy"} & data.keys()

    late, again = opportunity(lead, HOUR), opportunity(lead, timedelta())
    for expected in ("debounced", "duplicate"):
        answer = post(late)
        assert (answer.status, answer.outcome()) == (200, expected), answer.body
    row = reconciled.deliveries.row(f"ws_abc123xyz#{late.event_id()}#alert")
    assert row["state"] == "DEBOUNCED"
    assert reconciled.deliveries.row(row["debouncedBy"])["state"] == "PUBLISHED"
    assert run() == "complete"
    assert inbox.collect(expected=0) == []
    assert post(again).outcome() == "alerted"
    [alert] = inbox.collect(expected=1)
    assert (alert.event["id"], alert.event["data"].get("foundBy")) == (again.event_id(), None)
    verdict, what = doctor()
    assert (verdict, "missed leads in the last 24 hours: 1, since 20" in what) == ("WRONG", True), what


def test_a_lead_with_a_webhook_is_not_missed(run, inbox, post, put_lead):
    with_webhook = put_lead()
    put_lead(updated=timedelta(minutes=19))
    assert post(opportunity(with_webhook, HOUR)).outcome() == "alerted"
    assert run() == "complete: waiting 1"
    assert len(inbox.collect(expected=1)) == 1


def test_a_dry_run_lists_missed_leads_and_changes_nothing(reconciled, run, inbox, put_lead):
    leads = [put_lead(), put_lead()]
    before = rows_but_the_run(reconciled)
    text, status = ran("reconcile", "--dry-run")
    assert status == 0, text
    assert re.search(r"^2 were missed since 20\S+Z\. A run would alert:$", text, re.MULTILINE)
    for lead in leads:
        assert re.search(rf"^{lead}  OPPORTUNITY  20\S+Z  {CAMPAIGN['id']}$", text, re.MULTILINE), text
    assert text.endswith("\nNothing was changed, because this was a dry run.\n")
    assert rows_but_the_run(reconciled) == before
    assert inbox.collect(expected=0) == []
    assert run() == "complete: missed 2, alerted 2"
    assert len(inbox.collect(expected=2)) == 2


@pytest.mark.parametrize(
    "settings", [{"statuses": ["PENDING", "DONE"]}, {"filters": False}], ids=["refuses", "ignores"]
)
def test_an_api_without_the_filter_shows_all_leads(settings, run, inbox, put_lead, change_settings):
    lead = put_lead()
    put_lead(status="DONE")
    change_settings(**settings)
    assert run() == "complete: missed 1, alerted 1"
    [alert] = inbox.collect(expected=1)
    assert alert.event["data"]["leadId"] == lead


def test_the_redrive_publishes_what_sns_refused(reconciled, run, inbox, put_lead):
    lead = put_lead()
    with refusing(reconciled.topic_arn):
        assert run() == "complete: missed 1, pending 1"
        assert run() == "complete"
    assert reconciled.redrive.run()["published"] == 1
    [alert] = inbox.collect(expected=1)
    assert (alert.event["data"]["leadId"], alert.event["data"]["foundBy"]) == (lead, "reconciliation")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [({"status": 500, "body": "<html>"}, "answered 500"), ({"close": True}, "SendPilot's API could not be reached")],
)
def test_a_run_without_the_api_fails_and_the_doctor_says_so(fault, reason, reconciled, run, change_settings):
    change_settings("/", **fault)
    with pytest.raises(FunctionFailed) as failed:
        run()
    assert failed.value.error["errorType"] == "Reconcile"
    message = failed.value.error["errorMessage"]
    assert message.startswith("the list of campaigns could not be read: ")
    assert reason in message
    assert message.endswith("; before that, the run found 0 missed leads and published 0 alerts")
    text, status = ran("reconcile")
    assert (status, text) == (1, f"The run failed: {message}\n")
    verdict, what = doctor()
    assert (verdict, f"failed: {message.partition(';')[0]}" in what) == ("WRONG", True), what


def test_a_failed_run_has_alerted_what_it_found_before(reconciled, run, api, inbox, put_lead, change_settings, cleanup):
    for number in range(3):
        api.put_campaign({"id": f"camp_{number}", "name": f"Campaign {number}", "status": "active"})
        cleanup.callback(api.campaigns.pop, f"camp_{number}")
    leads = [put_lead(campaign=f"camp_{number}") for number in range(3)]
    change_settings("/v1/leads?campaignId=camp_1", status=503)
    with pytest.raises(FunctionFailed, match=r"the leads of the campaign camp_1 .* 503; .* 1 missed"):
        run()
    assert [alert.event["data"]["leadId"] for alert in inbox.collect(expected=1)] == leads[:1]
    # The next run tries the failed page again, and the run after it begins with the next list.
    with pytest.raises(FunctionFailed, match=r"the leads of the campaign camp_1 .* 503; .* 0 missed"):
        run()
    with pytest.raises(FunctionFailed, match=r"not every list of leads was read, .* 1 missed"):
        run()
    assert [alert.event["data"]["leadId"] for alert in inbox.collect(expected=1)] == leads[2:]
    api.clear()
    assert run() == "complete: missed 1, alerted 1"
    assert [alert.event["data"]["leadId"] for alert in inbox.collect(expected=1)] == leads[1:2]


def test_the_schedule_invokes_the_function(reconciled, inbox, put_lead, cleanup):
    scheduler, lead = boto3.client("scheduler"), put_lead()
    schedules = [scheduler.get_schedule(Name=one["Name"]) for one in scheduler.list_schedules()["Schedules"]]
    [own] = [one for one in schedules if reconciled.reconciliation.name in one["Target"]["Arn"]]
    assert own["ScheduleExpression"] == "rate(60 minutes)"
    # The same target, but now.
    moment = f"at({ago(timedelta()):%Y-%m-%dT%H:%M:%S})"
    asked = {"ScheduleExpression": moment, "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": own["Target"]}
    scheduler.create_schedule(Name="now", **asked)
    cleanup.callback(scheduler.delete_schedule, Name="now")
    assert [alert.event["data"]["leadId"] for alert in inbox.collect(expected=1, patience=30)] == [lead]


def test_the_run_is_a_log_line_with_a_metric(reconciled, run, inbox, put_lead):
    lead = put_lead()
    assert run() == "complete: missed 1, alerted 1"
    inbox.collect(expected=1)

    def lines():
        group = f"/aws/lambda/{NAME}-reconcile"
        events = boto3.client("logs").filter_log_events(logGroupName=group, filterPattern="MissedWebhooks")["events"]
        return [json.loads(event["message"]) for event in events]

    assert eventually(lines)
    line = lines()[-1]
    assert (line["MissedWebhooks"], line["FunctionName"]) == (1, reconciled.reconciliation.name)
    assert not re.search(f"{lead}|{PERSON['lastName']}|{PERSON['company']}", str(line))


def test_leads_that_were_alerted_while_it_was_off_are_not_missed(reconciled, run, inbox, post, put_lead, cleanup):
    lead = put_lead()
    before = environment_of("WebhookFunction")
    restart = partial(change_environment, "WebhookFunction")
    cleanup.callback(restart, before)
    restart({**before, "RECONCILE": "no"})
    assert post(opportunity(lead, HOUR)).outcome() == "alerted"
    # In AWS, a function that is created again has another name, so it has no such row. The local
    # AWS gives it the same name.
    reconciled.deliveries.delete(f"{reconciled.reconciliation.name}#run")
    assert run() == "complete: baseline 1"
    assert run() == "complete"
    assert len(inbox.collect(expected=1)) == 1


# The last test, because the other tests need the reconciliation.
def test_without_the_reconciliation_there_is_no_function(reconciled, api):
    assert environment_of("WebhookFunction")["RECONCILE"] == "yes"
    reconciled.redeploy(**parameters(api))
    assert (reconciled.reconciliation, environment_of("WebhookFunction")["RECONCILE"]) == (None, "no")
    names = [one["FunctionName"] for one in boto3.client("lambda").list_functions()["Functions"]]
    assert not [name for name in names if "Reconcile" in name]
    text, status = ran("reconcile")
    assert (status, "ReconcileMinutes" in text) == (1, True), text
    assert "reconciliation" not in ran("doctor")[0]
