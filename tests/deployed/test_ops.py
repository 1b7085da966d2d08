"""ops.pyz as operators run it: in the folder of an unpacked release, against the deployed template."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta, timezone

import pytest

import source
from examples import eventually
from local_aws.function import ROOT
from ops import request
from ops.signature import SAMPLE_SECRET, fresh_secret
from ops.stack import NAME
from pack import pack

AT = 1_708_770_600  # 24 February 2024, 10:30 UTC


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of an unpacked release. Its functions are empty, because the tests do not deploy them."""
    scratch = tmp_path_factory.mktemp("release")
    program = scratch / "build" / "WebhookFunction" / "bootstrap"
    program.parent.mkdir(parents=True)
    program.touch()
    shutil.copy(ROOT / "template.yaml", scratch / "build")
    folder = scratch / "alerts-1.2.3-x86_64"
    with zipfile.ZipFile(pack(scratch / "build", "x86_64", source.documents(), AT, folder)) as archive:
        archive.extractall(scratch)
    return folder


@pytest.fixture
def ops(unpacked, deployed):
    """Runs ops.pyz in that folder, without the repository on Python's path."""

    def run(*arguments, **environment):
        command = [sys.executable, "-I", "ops.pyz", *arguments]
        environment = {**os.environ, **environment}
        return subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def running(unpacked, deployed, cleanup):
    """Presents the local AWS as a `make run` with this port, until the test is over."""

    def running(port):
        run = unpacked / ".local-aws" / f"run-{port}"
        run.mkdir(parents=True)
        cleanup.callback(shutil.rmtree, run)
        lock = cleanup.enter_context((run / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        up = {"webhook_url": deployed.webhook_url, "endpoint": deployed.emulator.endpoint}
        (run / "up.json").write_text(json.dumps(up))

    return running


@pytest.fixture
def secret(deployed, cleanup):
    """Gives the stack this secret, until the test is over."""

    def put(text):
        deployed.secret.put(text)
        # Stored twice, because both versions must be the sample secret.
        cleanup.callback(deployed.secret.put, SAMPLE_SECRET)
        cleanup.callback(deployed.secret.put, SAMPLE_SECRET)

    return put


def test_doctor_finds_nothing_wrong_with_a_healthy_stack(ops, deployed, open_inbox, cleanup, running):
    open_inbox(deployed.topic_arn)
    deployed.redrive.run()
    deployed.redrive.resume()
    cleanup.callback(deployed.redrive.pause)
    running(8080)
    ran = ops("doctor", "--alert", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.endswith("\n13 ok\n"), ran.stdout


def test_with_several_runs_it_needs_a_port(ops, running):
    running(8080)
    running(8081)
    commands = (("pending",), ("resend", "--event", "x"), ("logs", "--no-follow"), ("doctor",), ("send", "opportunity"))
    for command in commands:
        ran = ops(*command)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "on the ports 8080 and 8081. Select one, for example by RUN=8080 (make) or --run 8080." in ran.stderr
    for command in (("pending",), ("logs", "--no-follow"), ("send", "message-sent")):
        assert ops(*command, "--run", "8081").returncode == 0
    ran = ops("pending", "--run", "8082")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "No `make run` is running on port 8082 here" in ran.stderr


def test_doctor_finds_a_missing_stack(ops):
    ran = ops("doctor", "elsewhere")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith("WRONG       stack: there is no stack elsewhere here\n")


def test_pending_reports_that_nothing_is_pending(ops, deployed):
    ran = ops("pending", NAME)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "Nothing is pending.\n", "")


def test_pending_reports_a_missing_stack(ops):
    ran = ops("pending", "elsewhere")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "elsewhere" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


def test_an_alert_is_sent_and_resent(ops, deployed, open_inbox):
    inbox, event_id = open_inbox(deployed.topic_arn), request.fresh("evt")
    sending = ("send", "opportunity", "--url", deployed.webhook_url, "--event-id", event_id, "--lead", "lead_42")
    ran = ops(*sending, WEBHOOK_SECRET=SAMPLE_SECRET)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    sent, answer = ran.stdout.splitlines()
    assert sent.startswith(f"> opportunity, event {event_id}, lead lead_42, status OPPORTUNITY, signed with ")
    assert re.fullmatch(r"< 200 alerted, \d+ ms", answer)
    (alert,) = inbox.collect(expected=1)
    assert (alert.event["id"], alert.event["data"]["leadId"]) == (event_id, "lead_42")
    ago = datetime.now(timezone.utc) - datetime.fromisoformat(alert.event["time"].replace("Z", "+00:00"))
    assert ago < timedelta(minutes=2)
    ran = ops("resend", NAME, "--event", event_id, "--yes")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    (again,) = inbox.collect(expected=1)
    assert (again.subject, again.text) == (alert.subject, alert.text)


def test_a_copied_sample_with_one_change_is_accepted(ops, unpacked, running):
    running(8080)
    copy = unpacked / "my event.json"
    copy.write_text((unpacked / "events" / "opportunity.json").read_text().replace("lead_abc123", "lead_other"))
    ran = ops("send", copy.name)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lead lead_other, " in ran.stdout
    assert "< 200 alerted, " in ran.stdout


def test_a_burst_of_one_event_is_one_alert(ops, deployed, open_inbox, running):
    running(8080)
    inbox, event_id = open_inbox(deployed.topic_arn), request.fresh("evt")
    ran = ops("send", "opportunity", "--times", "5", "--event-id", event_id)
    assert ran.stdout.count("< 200 alerted, ") == 1, ran.stdout
    assert [alert.event["id"] for alert in inbox.collect(expected=1)] == [event_id]
    ran = ops("send", "opportunity", "--times", "3")
    assert (ran.returncode, ran.stdout.splitlines()[-1].endswith("3 x 200 alerted")) == (0, True), ran.stdout
    assert len({alert.event["id"] for alert in inbox.collect(expected=3)}) == 3


def test_a_stranger_is_refused(ops, deployed, running):
    running(8080)
    for where in (("--url", deployed.webhook_url), ()):
        ran = ops("send", "opportunity", *where, WEBHOOK_SECRET=fresh_secret())
        assert (ran.returncode, ran.stderr) == (1, "")
        assert "\n< 401 unauthorized, " in ran.stdout
    for name in ("forged", "unsigned"):
        assert ops("send", name).returncode == 1


def test_a_local_run_gets_the_secret_of_its_stack(ops, running, secret):
    running(8080)
    secret(f"{fresh_secret()}\n{fresh_secret()}")
    # After the forgeries of other tests, the function may fetch the secret only every ten seconds.
    assert eventually(lambda: ops("send", "message-sent").returncode == 0)
    secret("whsec_...")
    ran = ops("send", "message-sent")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("The signing secret of the local stack cannot be used: it holds *** or ...")


def test_logs_prints_the_outcome_of_an_event(ops, running):
    running(8080)
    event_id = request.fresh("evt")
    assert ops("send", "opportunity-hostile", "--event-id", event_id).returncode == 0
    assert ops("send", "forged").returncode == 1
    one = rf"\d{{4}}-\d\d-\d\dT[0-9:.]+Z INFO  webhook  200 alerted, {event_id}, OPPORTUNITY, \d+ ms\n"
    for where in ((), (NAME,)):
        ran = ops("logs", *where, "--no-follow", "--event", event_id)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert re.fullmatch(one, ran.stdout), ran.stdout
    ran = ops("logs", "--no-follow", "--outcome", "unauthorized", "--function", "webhook", "--since", "5m")
    assert {line.split()[4] for line in ran.stdout.splitlines()} == {"unauthorized,"}
    assert "REPORT RequestId" in ops("logs", "--no-follow", "--all").stdout
    ran = ops("logs", "--outcome", "nothing")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "There is no outcome nothing. The outcomes are: alerted, " in ran.stderr


def test_logs_follows_until_ctrl_c(unpacked, deployed, ops, running, cleanup):
    running(8080)
    event_id = request.fresh("evt")
    command = [sys.executable, "-I", "ops.pyz", "logs", "--event", event_id]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    following = cleanup.enter_context(subprocess.Popen(command, cwd=unpacked, text=True, **pipes))
    cleanup.callback(following.kill)
    for outcome in ("alerted", "duplicate"):
        assert ops("send", "opportunity", "--event-id", event_id).returncode == 0
        assert f"200 {outcome}, {event_id}, " in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=30) == ("", "")
    assert following.returncode == 0


def test_it_reports_that_nothing_runs_here(ops):
    ran = ops("doctor")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "name a deployed stack" in ran.stderr
