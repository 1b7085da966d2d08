"""`make run` as users run it: two at once, and no process survives them."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples import eventually
from local_aws.function import build
from ops.running import ROOT, RUNS, running

PATIENCE = 180  # seconds until a run is up, while other tests build and run


def environment(**more):
    """Returns the environment of a user's shell, even if `make` runs the tests."""
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "AWS_", "PYTEST"))
    }
    return {**mine, **more}


def make(*arguments, **more):
    """Runs `make`, and returns its exit status and its output."""
    ran = subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return ran.returncode, ran.stdout


class MakeRun:
    """A `make run` in the background."""

    def __init__(self, log, *arguments):
        self._log = log
        with log.open("wb") as output:
            # In a new session, as in a terminal.
            command = ["make", "run", *arguments]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdout=output, stderr=output, start_new_session=True
            )

    def printed(self):
        return self._log.read_text("utf-8")

    def await_up(self):
        """Waits until the run is up, and returns its port."""
        up = re.compile(r"^Up at http://127\.0\.0\.1:(\d+)/webhooks/sendpilot$", re.MULTILINE)
        found = eventually(lambda: up.search(self.printed()) or self.process.poll() is not None, PATIENCE)
        assert found not in (True, False, None), self.printed()
        return found[1]

    def descendants(self):
        """Returns every live process that the run has started."""
        parents = {process: fields[1] for process in processes() if (fields := stat(process))}
        found = {str(self.process.pid)}
        while more := {process for process, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {str(self.process.pid)}

    def await_local_aws(self):
        """Waits until the local AWS has started, and returns all processes of the run."""
        assert eventually(lambda: "Building" in self.printed() or self.process.poll() is not None, PATIENCE)
        started = self.descendants()
        assert [process for process in started if "ministack" in command_of(process)], self.printed()
        return started

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def processes():
    """Returns all processes, by number."""
    return [one.name for one in Path("/proc").iterdir() if one.name.isdecimal()]


def stat(process):
    """Returns the state, the parent and other fields of a process, or an empty list if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def command_of(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def all_gone(started):
    """Returns whether all these processes have ended. A zombie has ended."""
    return all(stat(process)[:1] in ([], ["Z"]) for process in started)


@contextmanager
def make_run(tmp_path, name="run", *arguments):
    run = MakeRun(tmp_path / f"{name}.log", *arguments)
    try:
        yield run
    finally:
        run.end()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A built template, as in an unpacked release."""
    return build(tmp_path_factory.mktemp("fürst release"), RUNS)


def test_two_runs_have_their_own_state_and_the_tools_need_a_port(tmp_path, built):
    before = set(built.parent.iterdir())
    release = f"TEMPLATE={built}"
    with make_run(tmp_path, "one", release) as one, make_run(tmp_path, "other", release, "V=1") as other:
        ports = [one.await_up(), other.await_up()]
        assert {run.port for run in running()} >= set(ports)
        assert set(built.parent.iterdir()) == before
        for shown in ('"eventType": "lead.status.changed"', '"specversion": "1.0"'):
            assert (shown in one.printed(), shown in other.printed()) == (False, True)
        status, printed = make("pending")
        assert status == 2
        assert all(port in printed for port in ports)
        for port in ports:
            assert make("send", "EVENT=opportunity", f"RUN={port}")[0] == 0
            assert (RUNS / f"run-{port}" / "deploy.log").exists()
        started = one.descendants()
        one.end()
        assert eventually(lambda: all_gone(started), 20), one.printed()
        assert not (RUNS / f"run-{ports[0]}").exists()
        assert make("pending", f"RUN={ports[1]}") == (0, "Nothing is pending.\n")
        assert eventually(lambda: "New opportunity" in other.printed())
        started = other.descendants()
        other.process.kill()
        # Each function is a process, which must end too.
        assert [process for process in started if "bootstrap" in command_of(process)]
        assert eventually(lambda: all_gone(started), 20), other.printed()
        assert not {run.port for run in running()} & set(ports)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_nothing_survives_the_end_of_make(number, tmp_path):
    with make_run(tmp_path) as run:
        started = run.await_local_aws()
        run.process.send_signal(number)
        assert eventually(lambda: all_gone(started), 20), run.printed()
        run.process.wait(20)
        assert "Traceback" not in run.printed()


@pytest.mark.parametrize("victim", ["local_aws.demo", "lifeline.py"])
def test_nothing_survives_a_process_that_holds_the_local_aws(victim, tmp_path):
    with make_run(tmp_path) as run:
        started = run.await_local_aws()
        for process in started:
            if victim in command_of(process):
                os.kill(int(process), signal.SIGKILL)
        assert eventually(lambda: all_gone(started), 20), run.printed()


def test_it_deploys_with_the_given_parameters(tmp_path, built):
    given = (
        "StatusStream=standard",
        "AlertStatuses=OPPORTUNITY,MEETING_BOOKED",
        'StatusPipeline={"DONE": "gewonnen \'ß\'"}',
    )
    with make_run(tmp_path, "run", f"TEMPLATE={built}", *given) as run:
        port = run.await_up()
        for status in ("DONE", "MEETING_BOOKED"):
            assert make("send", "EVENT=opportunity", "LEAD=lead_42", f"STATUS={status}", f"RUN={port}")[0] == 0
        assert eventually(lambda: "Meeting booked" in run.printed() and "MEETING_BOOKED (" in run.printed())
        assert "lead_42 REPLY_RECEIVED -> DONE (gewonnen '\\xdf')" in run.printed()
        for process in run.descendants():
            if command_of(process).endswith("ministack\0"):
                os.kill(int(process), signal.SIGKILL)
        assert run.process.wait(30) == 2
        assert "The local AWS has ended. The end of " in run.printed()
        assert "Traceback" not in run.printed()


def test_the_demo_is_one_screen_with_the_verdict_last():
    status, printed = make("demo")
    assert status == 0, printed
    lines = printed.splitlines()
    assert len(lines) <= 60, printed
    assert "{" not in printed
    assert "    Subject: New opportunity: John Doe, VP of Engineering at TechCorp" in lines
    for shown in (
        "Last reply, 2 hours earlier:",
        "“Sounds interesting. Can we talk on Tuesday?”",
        "Campaign Q1 Outreach",
    ):
        assert lines.count(f"    {shown}") == 2, shown  # in the email and on the card
    assert [line for line in lines if re.fullmatch(r"A lead replies .* 200 remembered, \d+ ms", line)]
    assert [line for line in lines if re.fullmatch(r"The lead becomes an opportunity .* 200 alerted, \d+ ms", line)]
    # The first two calls are made at the same time.
    calls = "(API key, last reply|last reply, API key), claim, slot, publish, complete"
    [by] = [
        number for number, line in enumerate(lines) if re.fullmatch(rf"The alert, \d+ ms .*, by 6 .*: {calls}", line)
    ]
    asked = "/v1/leads/lead_abc123, /v1/campaigns?page=1&limit=100"
    assert lines[by + 1] == f"and 2 to SendPilot's API: {asked}"
    assert lines.index("ok: five answers as expected, and one alert with all details") == len(lines) - 8
    assert lines[-6] == "Next:"


def test_a_missed_lead_is_found_and_alerted_and_the_verdict_is_last(built):
    status, printed = make("missed", f"TEMPLATE={built}")
    assert status == 0, printed
    lines = printed.splitlines()
    assert len(lines) <= 60, printed
    assert "{" not in printed
    answers = [
        "complete: baseline 2",
        "complete: missed 1",
        "complete: missed 1, alerted 1",
        "200 debounced",
        "complete",
        "200 alerted",
    ]
    first = lines.index("") + 1
    assert [re.split(" {2,}", line)[1] for line in lines[first : first + len(answers)]] == answers
    assert "    Subject: New opportunity: Mia Moe, Head of Purchasing at Sample Corp." in lines
    late = "    This alert is late: no webhook arrived, and a reconciliation with SendPilot found the lead."
    assert lines.count(late) == 2  # in the email and on the card
    calls = "begin run, known leads, last reply, claim, known lead, slot, publish, complete, end run"
    assert f"  {calls}" in lines
    assert "  /v1/leads?campaignId=camp_xyz789&status=OPPORTUNITY&page=1&limit=100" in lines
    assert lines[-6] == "ok: six answers as expected, and one alert for each of two changes"
    assert lines[-4] == "Next:"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "StatusStream=on"), "StatusStream=on: must be off, standard or fifo."),
        (("run", "Statustream=off"), "did you mean StatusStream?"),
        (("run", "PORT=eighty"), "PORT must be a number from 1 to 65535, not 'eighty'"),
        (("run", "SECRET=whsec_short"), "The signing secret in WEBHOOK_SECRET (make: SECRET) cannot be used"),
        (("run", "TEMPLATE=nope.yaml"), "TEMPLATE=nope.yaml cannot be read"),
        (("demo", 'TEMPLATE=it\'s "nope" $HOME.yaml'), 'TEMPLATE=it\'s "nope" $HOME.yaml cannot be read'),
        (("run", "ReconcileMinutes=4"), "ReconcileMinutes=4: must be 0, or a whole number of minutes from 5 to 480."),
        (("demo", "PORT=1"), "make demo takes TEMPLATE V, not PORT"),
        (("missed", "STAY=yes"), "make missed takes TEMPLATE V, not STAY"),
        (("journey", "V=1"), "it needs STAY=yes"),
        (("journey", "STAY=perhaps"), "STAY takes yes or no, not perhaps"),
    ],
)
def test_it_immediately_names_an_unusable_argument(arguments, says):
    before = time.monotonic()
    status, printed = make(*arguments)
    assert status == 2
    assert says in printed
    assert "Traceback" not in printed
    assert "Building" not in printed
    assert time.monotonic() - before < 30
