"""The command `reconcile`: how it invokes the function, and how it prints each answer.

A server on this machine answers as Lambda does.
"""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from ops import reconcile
from ops.__main__ import main
from ops.reconcile import COUNTS, lines, read

REPORT = {"outcome": "complete", **dict.fromkeys(COUNTS, 0), "campaigns": 10, "requests": 12, "leads": 500}
NONE = "No missed lead was found.\n"
ARRIVED = "1 lead seemed missed, but the webhook arrived during the run.\n"
UNCHANGED = "Nothing was changed, because this was a dry run.\n"
READ = "10 campaigns read with 12 requests. 500 leads have the status OPPORTUNITY.\n"
SETTINGS = "SendPilot did not deliver the missed events. Check the webhook in SendPilot's settings.\n"
SINCE = {"missedSince": "2026-11-26T10:00:00Z"}
FOUND = {"leadId": "lead_1", "campaignId": "camp_1", "status": "OPPORTUNITY", "updatedAt": "2026-11-26T10:00:00Z"}


class Lambda(ThreadingHTTPServer):
    """An endpoint that records each invocation, and gives the same answer to all."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.invocations = []
        self.status, self.headers, self.body, self.delay = 200, {}, b"", 0

    def answer(self, body, status=200, delay=0, **headers):
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.delay, self.headers = status, delay, headers

    def fail(self, kind, message):
        self.answer({"errorType": kind, "errorMessage": message}, **{"X-Amz-Function-Error": "Unhandled"})

    def refuse(self, status, code, message):
        self.answer({"Type": "User", "Message": message}, status, **{"x-amzn-ErrorType": code})


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        payload = self.rfile.read(int(self.headers["content-length"]))
        self.server.invocations.append((self.path, json.loads(payload)))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        for name, value in {"content-length": str(len(self.server.body)), **self.server.headers}.items():
            self.send_header(name, value)
        # The command may have stopped waiting.
        with suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


@pytest.fixture
def stack():
    return {
        "StackName": "stack",
        "Outputs": [
            {"OutputKey": "DeliveriesTableName", "OutputValue": "table"},
            {"OutputKey": "ReconcileFunctionName", "OutputValue": "stack-reconcile-1"},
        ],
        "Parameters": [],
    }


@pytest.fixture
def function(monkeypatch, stack):
    """The function, invoked at an endpoint of this machine."""
    with Lambda() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "key",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        monkeypatch.setattr(reconcile, "described", lambda _: stack)
        yield server
        server.shutdown()


@pytest.fixture
def run(capsys):
    """Runs the command. Returns its exit status and both outputs."""

    def run(*options):
        with pytest.raises(SystemExit) as ended:
            main(["reconcile", "stack", *options])
        printed = capsys.readouterr()
        for text in printed:
            assert all(" " <= character <= "~" for character in text.replace("\n", "")), text
        return ended.value.code, printed.out, printed.err

    return run


def text(report, statuses=("OPPORTUNITY",)):
    """Returns the text about a run whose report has these other fields."""
    report = read(json.dumps({**REPORT, **report}).encode())
    return "".join(f"{line}\n" for line in lines(report, list(statuses)))


def test_prints_the_report_of_one_run(function, run):
    function.answer({**REPORT, "missed": 1, "alerted": 1, **SINCE})
    missed = "1 was missed since 2026-11-26T10:00:00Z: 1 alert published.\n"
    assert run() == (0, READ + missed + SETTINGS, "")
    assert function.invocations == [("/2015-03-31/functions/stack-reconcile-1/invocations", {})]


def test_a_dry_run_lists_each_lead(function, run):
    other = {**FOUND, "leadId": "lead_\x1b[2J", "campaignId": None}
    function.answer({**REPORT, "dryRun": True, "missed": 3, **SINCE, "wouldAlert": [FOUND, other]})
    status, out, err = run("--dry-run")
    assert (status, err) == (0, "")
    assert out == (
        f"{READ}"
        "3 were missed since 2026-11-26T10:00:00Z. A run would alert:\n"
        "LEAD          STATUS       UPDATED AT            CAMPAIGN\n"
        "lead_1        OPPORTUNITY  2026-11-26T10:00:00Z  camp_1\n"
        "lead_\\x1b[2J  OPPORTUNITY  2026-11-26T10:00:00Z\n"
        "... and 1 more\n"
        f"{SETTINGS}"
        "Nothing was changed, because this was a dry run.\n"
    )
    assert [payload for _, payload in function.invocations] == [{"dryRun": True}]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({}, "No missed lead was found.\n"),
        ({"baseline": 498}, "498 leads are known from now on, without an alert: the baseline.\n"),
        ({"baseline": 1}, "1 lead is known from now on, without an alert: the baseline.\n"),
        (
            {"baseline": 2, "dryRun": True},
            "A run would make 2 leads known without an alert, because the baseline is not complete.\n"
            "Nothing was changed, because this was a dry run.\n",
        ),
        (
            {"waiting": 2},
            "2 leads were updated only minutes ago, so their webhooks may still arrive.\nNo missed lead was found.\n",
        ),
        (
            {"waiting": 1},
            "1 lead was updated only minutes ago, so its webhook may still arrive.\nNo missed lead was found.\n",
        ),
        (
            {"missed": 8, "alerted": 3, "pending": 2, "arrived": 1, **SINCE},
            "8 were missed since 2026-11-26T10:00:00Z: 3 alerts published, 2 alerts pending, which the redrive "
            f"publishes, 3 left to the next run.\n{SETTINGS}{ARRIVED}",
        ),
        ({"missed": 1, "alerted": 1}, f"1 was missed: 1 alert published.\n{SETTINGS}"),
        # SendPilot delivered this event, but late.
        ({"arrived": 1}, NONE + ARRIVED),
        (
            {"outcome": "continues"},
            f"{NONE}The run ended before it had read every campaign, and the next run continues there.\n",
        ),
        (
            {"outcome": "continues", "dryRun": True},
            f"{NONE}The run ended before it had read every campaign, so this list may be incomplete.\n{UNCHANGED}",
        ),
        (
            {"outcome": "paused", "retryAt": "2026-11-26T10:05:00Z"},
            "No missed lead was found.\n"
            "SendPilot's API asked to wait until 2026-11-26T10:05:00Z, and a later run continues.\n",
        ),
        (
            {"outcome": "paused"},
            "No missed lead was found.\nSendPilot's API asked to wait, and a later run continues.\n",
        ),
    ],
    ids=str,
)
def test_says_what_a_run_found(report, expected):
    assert text(report) == READ + expected


def test_names_the_statuses_that_are_alerted(function, run, stack):
    stack["Parameters"] = [{"ParameterKey": "AlertStatuses", "ParameterValue": "OPPORTUNITY, MEETING_BOOKED"}]
    function.answer({"outcome": "complete", "campaigns": 1, "requests": 1, "leads": 1})
    said = "1 campaign read with 1 request. 1 lead has the status OPPORTUNITY or MEETING_BOOKED.\n"
    assert run() == (0, said + NONE, "")


def test_a_run_in_progress_prevents_another(function, run):
    function.answer({"outcome": "in_progress", "dryRun": False, "retryAt": "2026-11-26T10:05:30Z"})
    said = "Another run is in progress until 2026-11-26T10:05:30Z. Run the command again later.\n"
    assert run() == (2, "", said)


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        (
            "Reconcile",
            "the campaigns could not be read: SendPilot's API answered 500;\n\x1bbefore that, nothing",
            "The run failed: the campaigns could not be read: SendPilot's API answered 500; \\x1bbefore that, nothing",
        ),
        (
            "Sandbox.Timedout",
            "RequestId: 1 Error: Task timed out after 230.00 seconds",
            "Lambda ended the run at its time limit. A later run does the rest. "
            "The log: python3 ops.pyz logs stack --function reconcile --since 1h",
        ),
        (
            "Runtime.ExitError",
            "RequestId: 1 Error: Runtime exited with error: exit status 1",
            "The function did not start, or it crashed: Runtime.ExitError: RequestId: 1 Error: Runtime exited with "
            "error: exit status 1. The log may have the reason: python3 ops.pyz logs stack --function reconcile "
            "--since 1h",
        ),
    ],
)
def test_a_failed_run_is_one_line(kind, message, expected, function, run):
    function.fail(kind, message)
    assert run() == (1, f"{expected}\n", "")
    assert len(function.invocations) == 1


def test_an_error_without_a_reason_is_one_line(function, run):
    function.answer(b"null", **{"X-Amz-Function-Error": "Unhandled"})
    status, out, _ = run()
    assert status == 1
    assert out.startswith("The function did not start, or it crashed: without a reason. ")


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"null", b"[]", b"\xff", b"{}", b'{"outcome": "done"}', b'{"outcome": ["complete"]}'),
        *({**REPORT, "missed": "1"}, {**REPORT, "leads": None}, {**REPORT, "alerted": True}),
        *({**REPORT, "wouldAlert": {}}, {"scanned": 1, "published": 0}),
    ],
    ids=str,
)
def test_another_answer_is_not_taken_for_a_report(answer, function, run):
    function.answer(answer)
    status, out, err = run()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("The function answered, but not with a report that this version knows: ")


def test_a_throttled_invocation_is_not_repeated(function, run):
    function.refuse(429, "TooManyRequestsException", "Rate Exceeded.")
    status, out, err = run()
    assert (status, out, len(err.splitlines()), len(function.invocations)) == (2, "", 1, 1)
    assert err.startswith("Lambda started no run: TooManyRequestsException: Rate Exceeded. Another run may be in prog")


def test_a_failure_of_lambda_is_not_repeated(function, run):
    function.refuse(500, "ServiceException", "An error occurred.")
    status, out, err = run()
    assert (status, out, len(function.invocations)) == (2, "", 1)
    assert err.startswith("Invoke: ServiceException: An error occurred.")


def test_names_the_missing_permission(function, run):
    message = "User: arn:aws:iam::1:user/a is not authorized to perform: lambda:InvokeFunction on resource: arn"
    function.refuse(403, "AccessDeniedException", message)
    status, out, err = run()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "Grant lambda:InvokeFunction to the identity that your shell is logged in as." in err


def test_waits_longer_than_the_function_may_run_and_then_no_longer(function, run, monkeypatch):
    assert reconcile.READ_TIMEOUT > 230
    monkeypatch.setattr(reconcile, "READ_TIMEOUT", 0.2)
    function.answer(REPORT, delay=1)
    status, out, err = run()
    assert (status, out, len(err.splitlines()), len(function.invocations)) == (2, "", 1, 1)
    assert "so the result of the run is not known. The log may have it: python3 ops.pyz logs stack " in err


def test_without_a_connection_no_run_was_made(function, run, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "Check the network" in err and "not known" not in err


def test_ctrl_c_does_not_claim_that_the_run_ended(function, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reconcile, "invoked", interrupted)
    said = "\nStopped waiting. The run may go on in AWS. Its log line has the result.\n"
    assert run() == (130, "", said)


def test_says_how_to_turn_the_reconciliation_on(function, run, stack, monkeypatch, capsys):
    del stack["Outputs"][1]
    off = "The reconciliation of stack is off. To turn it on, set ReconcileMinutes, for example: "
    assert run() == (1, f"{off}sam deploy --parameter-overrides ReconcileMinutes=60\n", "")
    monkeypatch.setattr(reconcile, "use_local_run", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main(["reconcile"])
    assert (ended.value.code, capsys.readouterr().out) == (1, f"{off}make run ReconcileMinutes=60\n")
    assert function.invocations == []


def test_refuses_a_stack_of_another_template(function, run, stack):
    stack["Outputs"] = []
    said = "stack is not a stack of this template: it has no output DeliveriesTableName.\n"
    assert run() == (2, "", said)
