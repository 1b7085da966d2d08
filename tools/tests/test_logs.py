"""The command `logs`: selects and formats log lines.

tests/deployed/test_ops.py runs the command against a stack.
"""

import json
import re
from types import SimpleNamespace

import pytest

from ops import logs
from ops.__main__ import main
from ops.logs import OUTCOMES, Log, LogLine, formatted, is_wanted, whole_lines
from ops.reconcile import OUTCOMES as RUN_OUTCOMES
from source import ROOT

AT = 1_795_659_958_990  # 2026-11-26T02:25:58.990Z
WEBHOOK = {
    "timestamp": "2026-11-26T02:25:58.984Z",
    "level": "INFO",
    "message": "webhook",
    "requestId": "id",
    "outcome": "alerted",
    "status": 200,
    "eventId": "evt_1",
    "eventType": "lead.status.changed",
    "previousStatus": "REPLY_RECEIVED",
    "newStatus": "OPPORTUNITY",
    "attempts": 1,
    "durationMs": 14,
    "coldStart": True,
    "FunctionName": "f",
    "Alerted": 1,
    "ClaimTime": 3,
    "_aws": {"Timestamp": 1},
}
DELIVERY = {
    "timestamp": "2026-11-26T02:25:58.968535Z",
    "level": "WARN",
    "message": "delivery",
    "deliveryId": "ws_1#evt_1#alert",
    "outcome": "unavailable",
    "failure": "SNS refused it",
}
RUN = {
    "timestamp": "2026-11-26T02:25:58.984Z",
    "level": "INFO",
    "message": "reconcile",
    "requestId": "id",
    "outcome": "complete",
    "requests": 12,
    "campaigns": 10,
    "leads": 500,
    "baseline": 0,
    "waiting": 2,
    "missed": 1,
    "alerted": 1,
    "pending": 0,
    "arrived": 0,
    "missedSince": "2026-11-26T02:00:00Z",
    "durationMs": 8123,
    "FunctionName": "f",
    "MissedWebhooks": 1,
    "_aws": {"Timestamp": 1},
}
STARTED = {"time": "2026-11-26T02:25:58.990Z", "type": "platform.start", "record": {"requestId": "id"}}
REPORT = {"time": "2026-11-26T02:25:58.990Z", "type": "platform.report", "record": {"status": "success"}}
KILLED = {"time": "2026-11-26T02:25:58.990Z", "type": "platform.report", "record": {"status": "timeout"}}


def line(fields, function="webhook"):
    return LogLine(function, AT, fields if isinstance(fields, str) else json.dumps(fields))


def entry(text, at=AT, **more):
    return {"logStreamName": "stream", "timestamp": at, "message": text, **more}


def test_the_outcomes_are_those_of_the_functions():
    answers = (ROOT / "src" / "webhook" / "response.rs").read_text("utf-8")
    answers = answers[answers.index("pub fn row(") : answers.index("pub fn response(")]
    attempts = (ROOT / "src" / "delivery" / "log.rs").read_text("utf-8")
    attempts = attempts[attempts.index("fn name(outcome") :]
    named = re.findall(r'(?:done\(|retry\(\s*StatusCode::\w+,\s*|refused\(\s*StatusCode::\w+,\s*)"(\w+)"', answers)
    named += re.findall(r'=> "(\w+)"', attempts[: attempts.index("\n}\n")])
    runs = (ROOT / "src" / "reconcile" / "report.rs").read_text("utf-8")
    ended = re.findall(r'Self::\w+ => "(\w+)"', runs)
    assert set(ended) == set(RUN_OUTCOMES)
    named += [*ended, "failed"]
    assert len(OUTCOMES) == len(set(OUTCOMES))
    assert set(OUTCOMES) == set(named)


@pytest.mark.parametrize(
    ("fields", "function", "expected"),
    [
        (WEBHOOK, "webhook", "2026-11-26T02:25:58.984Z INFO  webhook  200 alerted, evt_1, OPPORTUNITY, 14 ms"),
        (
            {**WEBHOOK, "outcome": "unauthorized", "status": 401, "reason": "mismatch", "detail": "fix\nit"},
            "webhook",
            r"2026-11-26T02:25:58.984Z INFO  webhook  401 unauthorized, evt_1, OPPORTUNITY, 14 ms, mismatch, fix\nit",
        ),
        (
            {**WEBHOOK, "alert": "alerted", "stream": "pending", "streamFailure": "timed out"},
            "webhook",
            "2026-11-26T02:25:58.984Z INFO  webhook  "
            "200 alerted, evt_1, OPPORTUNITY, alert alerted, stream pending, 14 ms, timed out",
        ),
        (
            {"level": "INFO", "message": "redrive", "scanned": 2, "published": 1, "stillPending": 1, "durationMs": 9},
            "redrive",
            "2026-11-26T02:25:58.990Z INFO  redrive  scanned 2, published 1, stillPending 1, 9 ms",
        ),
        (
            RUN,
            "reconcile",
            "2026-11-26T02:25:58.984Z INFO  reconcile  complete, requests 12, campaigns 10, leads 500, baseline 0, "
            "waiting 2, missed 1, alerted 1, pending 0, arrived 0, missedSince 2026-11-26T02:00:00Z, 8123 ms",
        ),
        (
            {**RUN, "outcome": "paused", "dryRun": True, "retryAt": "2026-11-26T02:30:00Z"},
            "reconcile",
            ".* paused, dry run, requests 12, .*, retryAt 2026-11-26T02:30:00Z, 8123 ms",
        ),
        (
            {
                "level": "ERROR",
                "message": "reconcile",
                "outcome": "failed",
                "requests": 3,
                "failure": "it answered 500",
            },
            "reconcile",
            "2026-11-26T02:25:58.990Z ERROR reconcile  failed, requests 3, it answered 500",
        ),
        (
            DELIVERY,
            "redrive",
            "2026-11-26T02:25:58.968Z WARN  redrive  unavailable, ws_1#evt_1#alert, SNS refused it",
        ),
        (
            {"level": "ERROR", "message": "crash", "location": "src/a.rs:1:2"},
            "webhook",
            "2026-11-26T02:25:58.990Z ERROR webhook  crash, src/a.rs:1:2",
        ),
        ("END  RequestId: id\t5 ms", "webhook", "2026-11-26T02:25:58.990Z       webhook  END RequestId: id 5 ms"),
        ("\x1b[2J\u202e", "webhook", r"2026-11-26T02:25:58.990Z       webhook  \x1b[2J\u202e"),
        ({"message": "\x1b", "level": "\x9b" * 9, "timestamp": "\x1b"}, "webhook", r".*webhook  \\x1b$"),
        ({"message": ["x"]}, "webhook", ".*"),
        ("9" * 5000, "webhook", ".*9{397}[.]{3}$"),
        ("[" * 100_000, "webhook", ".*"),
    ],
)
def test_prints_a_log_line(fields, function, expected):
    printed = formatted(line(fields, function))
    assert printed == expected or (".*" in expected and re.fullmatch(expected, printed)), printed
    assert all(" " <= character <= "~" for character in printed)


def test_leaves_out_lambdas_own_lines_about_success():
    start, report, killed = "START RequestId: id", "REPORT RequestId: id", "REPORT RequestId: id\tStatus: timeout"
    for own in (start, report, STARTED, REPORT):
        assert not is_wanted(line(own), None, None, False)
        assert is_wanted(line(own), None, None, True)
    for other in (
        WEBHOOK,
        killed,
        KILLED,
        "thread 'main' panicked",
        {"type": "platform.start", "record": {"status": "error"}},
    ):
        assert is_wanted(line(other), None, None, False)


def test_selects_the_lines_of_one_event():
    second = {**DELIVERY, "deliveryId": "ws_1#evt_1~0123456789abcdef#status"}
    escaped = {**DELIVERY, "deliveryId": "ws_1#a%23b#alert"}
    for fields in (WEBHOOK, DELIVERY, second):
        assert is_wanted(line(fields), "evt_1", None, False)
    assert is_wanted(line(escaped), "a#b", None, False)
    found = {**DELIVERY, "deliveryId": "#reconciliation_0123abcd#alert"}
    assert is_wanted(line(found, "reconcile"), "reconciliation_0123abcd", None, False)
    for fields in ({**WEBHOOK, "eventId": "evt_10"}, {**DELIVERY, "deliveryId": "evt_1#evt_2#alert"}, STARTED, "evt_1"):
        assert not is_wanted(line(fields), "evt_1", None, True)


def test_selects_the_lines_of_one_outcome():
    assert is_wanted(line(WEBHOOK), None, "alerted", False)
    assert is_wanted(line({**WEBHOOK, "alert": "alerted", "stream": "pending"}), None, "pending", False)
    for fields in (WEBHOOK, STARTED, "duplicate"):
        assert not is_wanted(line(fields), None, "duplicate", True)
    assert not is_wanted(line(WEBHOOK), "evt_2", "alerted", False)


def test_joins_a_line_that_was_split_into_two_entries():
    text = json.dumps({**WEBHOOK, "previousStatus": "a\u2028b"}, ensure_ascii=False)
    first, second = text.split("\u2028")
    entries = [("webhook", entry(part)) for part in ("START id", first, second, "END id", "{no JSON", "{")]
    assert [one.text for one in whole_lines(entries)] == ["START id", text, "END id", "{no JSON", "{"]


@pytest.fixture
def groups(monkeypatch):
    """The entries of each log group, the calls, and the clients. A page may be empty."""
    groups = {"a": [], "b": [], "asked": [], "clients": []}

    def paginate(**given):
        groups["asked"].append(given)
        found = [one for one in groups[given["logGroupName"]] if one["timestamp"] >= given["startTime"]]
        return iter([{"events": found[:1]}, {"events": []}, {"events": found[1:]}])

    def client(service):
        groups["clients"].append(service)
        return SimpleNamespace(get_paginator=lambda operation: SimpleNamespace(paginate=paginate))

    monkeypatch.setattr(logs, "client", client)
    return groups


def test_prints_each_line_once_and_in_order(groups):
    log = Log({"webhook": "a", "redrive": "b"}, AT)
    groups["a"] = [entry("old", AT - 1), entry("1", AT, eventId="1"), entry("3", AT + 2, eventId="3")]
    groups["b"] = [entry("2", AT + 1), entry("4", AT + 3)]
    assert [(one.function, one.text) for one in log.new_lines()] == [
        *(("webhook", "1"), ("redrive", "2"), ("webhook", "3"), ("redrive", "4")),
    ]
    assert list(log.new_lines()) == []
    # The same text in another entry is another line. A line may arrive late.
    groups["a"] += [entry("1", AT, eventId="5"), entry("late", AT + 1, eventId="6")]
    assert [one.text for one in log.new_lines()] == ["1", "late"]


def test_reads_only_the_latest_minute_again(groups):
    log = Log({"webhook": "a"}, AT)
    groups["a"] = [entry("1", AT), entry("2", AT + 600_000)]
    assert len(list(log.new_lines())) == 2
    groups["a"] += [entry("3", AT + 550_000)]
    assert [one.text for one in log.new_lines()] == ["3"]
    assert [one["startTime"] for one in groups["asked"]] == [AT, AT + 540_000]
    # With a client per call, Python would ignore a Ctrl-C while it closes a client's connections.
    assert groups["clients"] == ["logs"]


@pytest.fixture
def stack(monkeypatch, groups):
    """A stack whose reconciliation is on."""
    stack = {
        "StackName": "stack",
        "Outputs": [
            {"OutputKey": name, "OutputValue": name} for name in ("RedriveFunctionName", "ReconcileFunctionName")
        ],
    }
    for function in ("webhook", "redrive", "reconcile"):
        groups[f"/aws/lambda/stack-{function}"] = []
    monkeypatch.setattr(logs, "described", lambda _: stack)
    return stack


def read_groups(groups, *options):
    """Runs the command. Returns its exit status and the functions whose log groups it read."""
    with pytest.raises(SystemExit) as ended:
        main(["logs", "stack", "--no-follow", *options])
    return ended.value.code, [asked["logGroupName"].rpartition("-")[2] for asked in groups["asked"]]


def test_reads_the_log_of_the_reconciliation_only_if_it_is_on(stack, groups, capsys):
    assert read_groups(groups) == (0, ["webhook", "redrive", "reconcile"])
    groups["asked"].clear()
    assert read_groups(groups, "--function", "reconcile") == (0, ["reconcile"])
    groups["asked"].clear()
    del stack["Outputs"][1]
    assert read_groups(groups) == (0, ["webhook", "redrive"])
    groups["asked"].clear()
    capsys.readouterr()
    assert read_groups(groups, "--function", "reconcile") == (2, [])
    off = "The reconciliation of stack is off. To turn it on, set ReconcileMinutes, for example: "
    assert capsys.readouterr().err == f"{off}sam deploy --parameter-overrides ReconcileMinutes=60\n"
