"""Errors that end a command early print one line, and never a traceback."""

import os
import re
import signal
import subprocess
import sys

import pytest

from ops.__main__ import main
from source import ROOT

COMMANDS = (
    *(("doctor", "stack"), ("logs", "stack"), ("pending", "stack"), ("resend", "stack", "--since", "2h", "--yes")),
    ("reconcile", "stack"),
)
REGION = {"AWS_DEFAULT_REGION": "us-east-1"}
KEY = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", **REGION}
# The variables, the content of ~/.aws/config, and the expected text.
SETTINGS = {
    "no region": ({}, "", "AWS_DEFAULT_REGION"),
    "no region that can be": ({**KEY, "AWS_DEFAULT_REGION": "us east"}, "", "Set AWS_DEFAULT_REGION"),
    "no credentials": (REGION, "", "Log your shell in"),
    "half of the credentials": ({**REGION, "AWS_ACCESS_KEY_ID": "id"}, "", "Log your shell in"),
    "no session": (
        REGION,
        "[default]\nsso_session=a\nsso_account_id=1\nsso_role_name=a\n"
        "[sso-session a]\nsso_region=us-east-1\nsso_start_url=https://a.invalid\n",
        "Log your shell in",
    ),
    "no network": ({**KEY, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "", "Check the network"),
    "no such profile": ({"AWS_PROFILE": "nobody"}, "", "Set AWS_PROFILE"),
    "no config": ({}, "[default", "Fix the file"),
    "no endpoint that can be": ({**KEY, "AWS_ENDPOINT_URL": "nowhere"}, "", "Check the AWS settings"),
    "no program for credentials": (REGION, "[default]\ncredential_process=/nowhere/\n", "Check the AWS settings"),
    "no JSON of that program": (REGION, "[default]\ncredential_process=echo []\n", "Check the AWS settings"),
}
EACH = ("no region", "no credentials", "no network")


@pytest.mark.parametrize(
    ("command", "settings"),
    # Settings whose errors are the same for all commands run with one command.
    [(command, settings) for settings in SETTINGS for command in (COMMANDS if settings in EACH else COMMANDS[:1])],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_unusable_aws_settings_are_explained(command, settings, tmp_path):
    variables, config, said = SETTINGS[settings]
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(config)
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": "tools",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Without these, botocore asks EC2's metadata service for credentials, and tries a failing
        # call five times.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        **variables,
    }
    ran = subprocess.run(
        [sys.executable, "-m", "ops", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2, ran
    assert said in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    if command[0] == "doctor":
        assert ran.stderr == ""
        assert ran.stdout.startswith("can't tell  stack: ")
    else:
        assert (ran.stdout, len(ran.stderr.splitlines())) == ("", 1)


def test_a_closed_pipe_ends_a_command_silently():
    for command in (["doctor", "stack"], ["send", "opportunity", "--url", "http://127.0.0.1:1/"]):
        reads, writes = os.pipe()
        os.close(reads)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "tools", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["WEBHOOK_SECRET"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        run = [sys.executable, "-m", "ops", *command]
        ran = subprocess.run(run, cwd=ROOT, env=environment, stdout=writes, stderr=subprocess.PIPE, timeout=60)
        os.close(writes)
        assert (ran.returncode, ran.stderr) == (141, b"")


def test_ctrl_c_ends_a_command_with_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ops.pending.described", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["pending", "stack"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "\nStopped.\n")


def test_ctrl_c_ends_a_command_during_an_objects_disposal():
    # botocore disposes of its clients in a callback, and Python ignores errors in callbacks.
    script = """
import signal, weakref
import ops.pending
from ops.__main__ import main

class Client:
    pass

def described(_):
    weakref.finalize(Client(), signal.raise_signal, signal.SIGINT)
    print("not stopped")

ops.pending.described = described
main(["pending", "stack"])
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "tools", "PYTHONDONTWRITEBYTECODE": "1"}
    signals = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    run = [sys.executable, "-c", script]
    ran = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, **signals)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "\nStopped.\n")


def test_a_bug_is_reported_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("ops.pending.described", lambda _: {}["\x1b"])
    with pytest.raises(SystemExit) as ended:
        main(["pending", "stack"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"KeyError: .*This is a bug in this program, in test_\w+\.py, line \d+\.\n", said)
