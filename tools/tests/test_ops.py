"""ops.pyz: its content, and its messages if it cannot run.

tests/deployed/test_ops.py runs it against a deployed stack.
"""

import ast
import os
import re
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest

import operator_tools
from operator_tools import OPS, ops_pyz
from ops.signature import SAMPLE_SECRET
from source import ROOT

COMMANDS = ("doctor", "forget", "logs", "pending", "reconcile", "resend", "send")
MODULES = sorted(OPS.glob("*.py"))


@pytest.fixture(scope="session")
def pyz(tmp_path_factory):
    """A folder with only ops.pyz."""
    path = tmp_path_factory.mktemp("unpacked") / "ops.pyz"
    path.write_bytes(ops_pyz())
    return path


@pytest.fixture
def run(pyz):
    """Runs ops.pyz without credentials and, unless `boto3` is set, without boto3."""

    def run(*arguments, boto3=False, **environment):
        command = [sys.executable, "-I", *([] if boto3 else ["-S"]), pyz, *arguments]
        environment["PATH"] = os.environ["PATH"]
        return subprocess.run(command, cwd=pyz.parent, env=environment, capture_output=True, text=True, timeout=60)

    return run


def imported(module):
    """Yields the top-level packages that a module imports."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_imports_only_boto3_and_the_standard_library(module):
    assert set(imported(module)) <= {"ops", "boto3", "botocore", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_uses_only_syntax_of_the_oldest_python(module):
    ast.parse(module.read_text("utf-8"), feature_version=(3, 9))


def test_the_same_source_gives_the_same_bytes(monkeypatch, tmp_path):
    first = ops_pyz()
    copy = tmp_path / "ops"
    copy.mkdir()
    for module in reversed(MODULES):
        (copy / module.name).write_bytes(module.read_bytes())
        (copy / module.name).chmod(0o600)
    monkeypatch.setattr(operator_tools, "OPS", copy)
    assert ops_pyz() == first


def test_it_has_every_module_and_every_sample():
    with zipfile.ZipFile(BytesIO(ops_pyz())) as archive:
        packed = set(archive.namelist())
    samples = {f"ops/events/{sample.name}" for sample in (ROOT / "events").glob("*.json")}
    assert len(samples) > 10
    assert packed == {"__main__.py"} | {f"ops/{module.name}" for module in MODULES} | samples


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_needs_no_boto3_and_lists_the_exit_statuses(command, run):
    ran = run(command, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"usage: python3 ops.pyz {command} ")
    assert "Exit status: 0 if " in ran.stdout


def test_its_help_lists_every_command(run):
    ran = run("--help")
    assert ran.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s+\w", ran.stdout, re.MULTILINE), ran.stdout


@pytest.mark.parametrize(
    "command",
    [
        *(("doctor", "stack"), ("logs", "stack"), ("pending", "stack"), ("resend", "stack", "--since", "2h")),
        *(("forget", "stack", "--lead", "lead_1"), ("reconcile", "stack")),
    ],
)
def test_without_boto3_it_says_what_to_install(command, run):
    ran = run(*command)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr == "This program needs boto3. AWS CloudShell has it. Elsewhere, run: python3 -m pip install boto3\n"
    )


def test_send_needs_no_boto3(run):
    ran = run("send", "test-event", "--url", "http://127.0.0.1:1/")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("First set the environment variable WEBHOOK_SECRET")
    assert ran.stderr.endswith(" Nothing was sent.\n")
    ran = run("send", "test-event", "--url", "http://127.0.0.1:1/", WEBHOOK_SECRET=SAMPLE_SECRET)
    assert (ran.returncode, ran.stderr) == (2, "")
    assert ran.stdout.startswith("> test-event, event evt_")
    assert "< no answer from http://127.0.0.1:1/: " in ran.stdout


def test_send_lists_the_samples(run):
    ran = run("send", "nothing", "--url", "http://127.0.0.1:1/", WEBHOOK_SECRET=SAMPLE_SECRET)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.search("no sample and no file 'nothing'.*: forged, .*, unsigned. Nothing was sent.$", ran.stderr)


def test_without_a_stack_it_says_how_to_name_one(run):
    resend, forget = ("resend", "--since", "2h"), ("forget", "--lead", "lead_1")
    for command in (("send", "test-event"), ("doctor",), ("logs",), ("pending",), ("reconcile",), resend, forget):
        ran = run(*command, boto3=True)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "name a deployed stack" in ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_refuses_a_local_run_together_with_a_deployed_stack(command, run):
    deployed = ("event", "--url", "http://127.0.0.1:1/") if command == "send" else ("stack",)
    ran = run(command, *deployed, "--run", "8080")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("--run (make: RUN) names a local run, and ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1", "8080 8081", "9" * 5000])
def test_refuses_an_invalid_port(port, run):
    ran = run("doctor", f"--run={port}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "argument --run: " in ran.stderr


def test_refuses_an_empty_name(run):
    for command, name in ((("doctor", ""), "STACK"), (("send", "opportunity", "--url", ""), "--url")):
        ran = run(*command)
        assert (ran.returncode, ran.stdout, ran.stderr) == (
            2,
            "",
            f"{name} is empty: give it a value, or leave it out.\n",
        )


def test_names_the_oldest_supported_python(pyz):
    old = f"import runpy, sys; sys.version_info = (3, 8, 18); runpy.run_path({str(pyz)!r}, run_name='__main__')"
    ran = subprocess.run([sys.executable, "-I", "-c", old], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "This program needs Python 3.9 or newer. AWS CloudShell has a newer one.\n"
