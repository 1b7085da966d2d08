"""ops.pyz as an operator has it: in the folder of an unpacked release, against the deployed template."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

import source
from local_aws.function import ROOT
from ops import request
from ops.signature import SAMPLE_SECRET, fresh_secret
from ops.stack import NAME
from pack import pack

AT = 1_708_770_600  # 24 February 2024, 10:30 UTC


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of an unpacked release. Its functions are empty, because nothing here deploys them."""
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
    """Runs ops.pyz in that folder, with nothing of the repository on Python's path."""

    def run(*arguments, **environment):
        command = [sys.executable, "-I", "ops.pyz", *arguments]
        environment = {**os.environ, **environment}
        return subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=120)

    return run


def test_doctor_finds_nothing_wrong_with_a_healthy_stack(ops, unpacked, deployed, open_inbox, cleanup):
    open_inbox(deployed.topic_arn)
    deployed.redrive.run()
    deployed.redrive.resume()
    cleanup.callback(deployed.redrive.pause)
    # Not every machine resolves the host of the local AWS's API, so the doctor gets its URL as in a clone.
    running = unpacked / ".local-aws" / "webhook-url"
    running.parent.mkdir()
    cleanup.callback(shutil.rmtree, running.parent)
    running.write_text(deployed.webhook_url)
    ran = ops("doctor")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.endswith("\n13 ok\n"), ran.stdout


def test_doctor_finds_that_there_is_no_stack(ops):
    ran = ops("doctor", "elsewhere")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith("WRONG       stack: there is no elsewhere here\n")


def test_pending_lists_what_is_not_published(ops, deployed):
    ran = ops("pending", NAME)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "Nothing is pending.\n", "")


def test_pending_says_that_there_is_no_stack(ops):
    ran = ops("pending", "elsewhere")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "elsewhere" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


def test_an_alert_is_sent_and_resent(ops, deployed, open_inbox):
    inbox, event_id = open_inbox(deployed.topic_arn), request.fresh("evt")
    sending = ("send", "events/opportunity.json", "--url", deployed.webhook_url, "--event-id", event_id)
    ran = ops(*sending, WEBHOOK_SECRET=SAMPLE_SECRET)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert '"outcome": "alerted"' in ran.stdout
    (alert,) = inbox.collect(expected=1)
    assert alert.event["id"] == event_id
    ran = ops("resend", NAME, "--event", event_id, "--yes")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    (again,) = inbox.collect(expected=1)
    assert (again.subject, again.text) == (alert.subject, alert.text)


def test_a_stranger_is_refused(ops, deployed):
    ran = ops("send", "events/opportunity.json", "--url", deployed.webhook_url, WEBHOOK_SECRET=fresh_secret())
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "  < 401\n" in ran.stdout


def test_it_says_that_nothing_runs_here(ops):
    ran = ops("doctor")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "name a deployed stack" in ran.stderr
