"""The doctor's checks of the reconciliation, with the answers of AWS made up.

tests/deployed/test_doctor.py runs the doctor against a deployed stack.
"""

import json
import re
import subprocess
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from local_aws.sendpilot_api import KEY, SendPilotApi
from ops import examination
from ops.examination import CANT_TELL, OK, WRONG, Examination, Finding

NOW = 1_795_659_958.0  # 2026-11-26 02:25:58Z
HOUR = 60 * 60
URL = "http://127.0.0.1:1/webhooks/sendpilot"
COUNTS = {"campaigns": 10, "requests": 12, "leads": 500, "baseline": 0, "missed": 0, "arrived": 0}


class Stack:
    """A stack whose reconciliation runs every hour, and its log, its row and its API key."""

    def __init__(self):
        outputs = {
            "WebhookUrl": URL,
            "DeliveriesTableName": "table",
            "ReconcileFunctionName": "stack-reconcile-1",
            "ApiKeySecretArn": "arn:secret",
        }
        self.described = {
            "StackName": "stack",
            "StackStatus": "UPDATE_COMPLETE",
            "CreationTime": datetime.fromtimestamp(NOW - 48 * HOUR, timezone.utc),
            "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
            "Parameters": [],
        }
        self.set("ReconcileMinutes", "60")
        self.schedules = {"id of ReconcileFunctionEveryInterval": {"State": "ENABLED"}}
        self.entries = []
        self.rows = {"stack-reconcile-1#run": {"progress": '{"baselined":["OPPORTUNITY"]}'}}
        self.key = json.dumps({"apiKey": KEY})
        self.asked = []

    def set(self, name, value):
        self.described["Parameters"].append({"ParameterKey": name, "ParameterValue": value})

    def run(self, ago, **fields):
        """Adds the log line of a run that ended `ago` seconds ago."""
        fields = {"message": "reconcile", "outcome": "complete", **COUNTS, **fields}
        self.entries.append({"timestamp": int((NOW - ago) * 1000), "message": json.dumps(fields)})

    def client(self, service):
        calls = {
            "cloudformation": {
                "describe_stacks": lambda **_: {"Stacks": [self.described]},
                "describe_stack_resource": lambda LogicalResourceId, **_: {
                    "StackResourceDetail": {"PhysicalResourceId": f"id of {LogicalResourceId}"}
                },
            },
            "scheduler": {"get_schedule": lambda **asked: self.schedules[asked["Name"]]},
            "secretsmanager": {"get_secret_value": lambda **_: {"SecretString": self.key}},
        }
        return SimpleNamespace(**calls.get(service, {}))

    def pages(self, service, operation, items, **asked):
        if operation != "filter_log_events":
            return iter(())
        self.asked.append(asked)
        return iter([entry for entry in self.entries if entry["timestamp"] >= asked["startTime"]])

    def finding(self, title="reconciliation", **options):
        """Returns the doctor's finding with this title, or None if the doctor did not check that."""
        found = Examination("stack", NOW, URL, **options).findings()
        found = [finding for finding in found if finding.what.startswith(f"{title}: ")]
        if not found:
            return None
        (finding,) = found
        commands = "\n".join(line for line in finding.remedy.splitlines() if line.startswith("  "))
        checked = subprocess.run(["bash", "-n"], input=commands, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        return Finding(finding.verdict, finding.what.removeprefix(f"{title}: "), finding.remedy)


@pytest.fixture
def stack(monkeypatch):
    stack = Stack()
    monkeypatch.setattr(examination, "client", stack.client)
    monkeypatch.setattr(examination, "pages", stack.pages)
    monkeypatch.setattr(examination, "Deliveries", lambda name: SimpleNamespace(row=stack.rows.get, pending=list))
    return stack


def test_says_when_the_last_run_was_and_what_it_read(stack):
    stack.run(2 * HOUR, missed=0, leads=499)
    stack.run(30 * 60)
    finding = stack.finding()
    what = "the last run, at 2026-11-26 01:55:58Z, read 10 campaigns and 500 leads; none missed in the last 24 hours"
    assert (finding.verdict, finding.what, finding.remedy) == (OK, what, "")
    assert stack.asked[-1] == {
        "logGroupName": "id of ReconcileLogs",
        "startTime": int((NOW - 24 * HOUR) * 1000),
    }


def test_does_not_check_a_reconciliation_that_is_off(stack):
    stack.described["Outputs"] = [one for one in stack.described["Outputs"] if "Reconcile" not in one["OutputKey"]]
    assert stack.finding() is None
    assert stack.asked == []


def test_finds_that_no_run_ended_within_three_intervals(stack):
    stack.run(3 * HOUR - 1)
    assert stack.finding().verdict == OK
    stack.entries.clear()
    stack.run(3 * HOUR + 1)
    # Neither of these is a run of the schedule that did its work.
    stack.run(60, dryRun=True)
    stack.run(60, outcome="in_progress")
    stack.entries.append({"timestamp": int(NOW * 1000), "message": "START RequestId: id"})
    stack.entries.append({"timestamp": int(NOW * 1000), "message": json.dumps({"message": "delivery"})})
    finding = stack.finding()
    what = "no run has ended in the last 180 minutes, the last one at 2026-11-25 23:25:57Z"
    assert (finding.verdict, finding.what) == (WRONG, what)
    assert "  aws logs tail --since 24h /aws/lambda/stack-reconcile\n" in finding.remedy
    assert finding.remedy.endswith("\n  python3 ops.pyz reconcile stack")
    stack.entries.clear()
    assert stack.finding().what == "no run has ended in the last 180 minutes, and none in the last 24 hours"


def test_finds_that_the_schedule_is_disabled(stack):
    stack.schedules = {"id of ReconcileFunctionEveryInterval": {"State": "DISABLED"}}
    finding = stack.finding()
    what = "no run has ended in the last 180 minutes, and none in the last 24 hours; the schedule is DISABLED"
    assert (finding.verdict, finding.what) == (WRONG, what)
    assert finding.remedy.startswith("Enable the schedule in the console") and "REVERT_DRIFT" in finding.remedy


def test_a_new_stack_needs_no_run_yet(stack):
    stack.described["LastUpdatedTime"] = datetime.fromtimestamp(NOW - 3 * HOUR + 1, timezone.utc)
    finding = stack.finding()
    what = "no run has ended yet, but the stack was deployed less than 180 minutes ago"
    assert (finding.verdict, finding.what) == (CANT_TELL, what)
    stack.described["LastUpdatedTime"] = datetime.fromtimestamp(NOW - 3 * HOUR - 1, timezone.utc)
    assert stack.finding().verdict == WRONG


def test_finds_that_the_last_run_failed(stack):
    stack.run(60, outcome="failed", failure="the list of campaigns could not be read:\nit answered 500")
    finding = stack.finding()
    what = "the last run, at 2026-11-26 02:24:58Z, failed: the list of campaigns could not be read: it answered 500"
    assert (finding.verdict, finding.what) == (WRONG, what)
    assert "  python3 ops.pyz reconcile stack\n" in finding.remedy and "API key" in finding.remedy
    # A later success ends the finding.
    stack.run(30)
    assert stack.finding().verdict == OK


def test_finds_missed_leads_of_the_last_day(stack):
    stack.run(25 * HOUR, missed=7, missedSince="2026-11-24T00:00:00Z")
    stack.run(20 * HOUR, missed=1, missedSince="2026-11-25T05:00:00Z")
    stack.run(10 * HOUR, missed=2, missedSince="2026-11-25T04:00:00Z")
    stack.run(60, arrived=3, missed="x")
    finding = stack.finding()
    assert (finding.verdict, finding.what) == (
        WRONG,
        "missed leads in the last 24 hours: 3, since 2026-11-25T04:00:00Z",
    )
    assert f"send changes of status to {URL}\n" in finding.remedy
    assert finding.remedy.endswith("\n  python3 ops.pyz reconcile stack")
    stack.run(30, outcome="failed", failure="it answered 500")
    finding = stack.finding()
    assert re.match("the last run, .* failed: it answered 500; missed leads in the last 24 hours: 3, ", finding.what)


def test_a_missed_lead_without_a_time_is_missed_since_its_run(stack):
    stack.run(60, missed=1)
    assert stack.finding().what == "missed leads in the last 24 hours: 1, since 2026-11-26 02:24:58Z"


def test_a_pause_is_no_fault(stack):
    stack.run(60, outcome="paused", campaigns=3)
    finding = stack.finding()
    assert finding.verdict == OK
    assert "read 3 campaigns and 500 leads, and paused as SendPilot's API asked; " in finding.what


@pytest.mark.parametrize(
    ("progress", "lacking"),
    [
        ('{"baselined":["OPPORTUNITY","MEETING_BOOKED"]}', None),
        ('{"baselined":["OPPORTUNITY"]}', "meeting_booked"),
        ('{"baselined":[]}', "OPPORTUNITY, meeting_booked"),
        ("{}", "OPPORTUNITY, meeting_booked"),
        ('{"baselined":"OPPORTUNITY"}', "OPPORTUNITY, meeting_booked"),
        (None, "OPPORTUNITY, meeting_booked"),
    ],
)
def test_says_which_statuses_have_no_baseline(progress, lacking, stack):
    stack.set("AlertStatuses", "OPPORTUNITY, meeting_booked")
    stack.rows = {"stack-reconcile-1#run": {"progress": progress}} if progress else {}
    stack.run(60, outcome="continues", baseline=100)
    finding = stack.finding()
    said = "; no missed lead with the status {} is alerted until the baseline is complete"
    assert finding.verdict == OK
    assert finding.what.partition("24 hours")[2] == (said.format(lacking) if lacking else "")


def test_its_commands_for_a_local_run_are_targets_of_make(stack):
    finding = stack.finding(is_local=True, port="8080")
    assert "  make logs RUN=8080 FUNCTION=reconcile SINCE=24h\n" in finding.remedy
    assert finding.remedy.endswith("\n  make reconcile RUN=8080")


def test_names_the_permission_to_read_the_log(stack, monkeypatch):
    def refuse(*_, **__):
        message = "User: a is not authorized to perform: logs:FilterLogEvents on resource: b"
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, "FilterLogEvents")

    monkeypatch.setattr(examination, "pages", refuse)
    finding = stack.finding()
    assert (finding.verdict, "Grant logs:FilterLogEvents to" in finding.remedy) == (CANT_TELL, True)


def test_says_what_a_bad_api_key_means_for_the_reconciliation(stack):
    with SendPilotApi() as api:
        stack.set("SendPilotApiUrl", api.url)
        assert stack.finding("API key").verdict == OK
        api.scopes = ["workspace:read"]
        assert stack.finding("API key").what == "the key lacks leads:read, so the reconciliation cannot read leads"
        api.scopes = ["leads:read"]
        assert stack.finding("API key").what == "the key lacks workspace:read"
        stack.key = '{"apiKey":""}'
        without = "Alerts are published without the lead's name, and the reconciliation cannot run"
        assert stack.finding("API key").what.endswith(f". {without}")
        stack.described["Outputs"] = [one for one in stack.described["Outputs"] if "Reconcile" not in one["OutputKey"]]
        assert stack.finding("API key").what.endswith(". Alerts are published without the lead's name")
