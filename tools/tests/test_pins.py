"""A build or a workflow fetches only exact versions.

Tools are pinned by hash, actions by commit, the compiler by its version. `--locked` enforces
Cargo.lock.
"""

import json
import re

import pytest

from source import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
REQUIREMENTS = sorted((ROOT / "tools").glob("requirements*.txt"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def name(path):
    return path.name


def test_there_are_files_to_check():
    assert WORKFLOWS
    assert REQUIREMENTS


@pytest.mark.parametrize("required", REQUIREMENTS, ids=name)
def test_each_lock_has_every_tool_that_is_required(required):
    asked = re.findall(r"^([\w-]+==\S+)", required.read_text("utf-8"), re.MULTILINE)
    lock = required.with_suffix(".lock").read_text("utf-8")
    locked = re.findall(r"^([\w-]+==\S+).*\\\n +--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert asked
    assert set(asked) <= set(locked), f"{required} says how to write its lock"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_each_action_is_a_commit_with_its_version(workflow):
    used = re.findall(r"uses: *(.*)", workflow.read_text("utf-8"))
    assert used
    for action in used:
        assert re.search(r"^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", action), action


def test_the_pinned_compiler_counted_the_instruction_baseline():
    toolchain = (ROOT / "rust-toolchain.toml").read_text("utf-8")
    pinned = re.search(r'^channel = "(\d+\.\d+\.\d+)"$', toolchain, re.MULTILINE)
    assert pinned
    baselines = json.loads((ROOT / "crates/bench/instructions.json").read_text("utf-8"))
    assert {baseline["rustc"] for baseline in baselines.values()} == {pinned[1]}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_a_workflow_uses_the_pinned_compiler(workflow):
    commands = set(re.findall(r"\brustup .*", workflow.read_text("utf-8")))
    assert commands == {"rustup toolchain install"}


def test_ci_counts_instructions_on_x86_64_or_fails():
    steps = (ROOT / ".github/workflows/ci.yml").read_text("utf-8").split("      - ")
    counting = [step for step in steps if "make instructions" in step]
    assert len(counting) == 1
    assert counting[0].startswith("if: runner.arch == 'X64'\n")
    assert "OPTIONAL" not in counting[0]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_each_make_target_that_a_workflow_calls_exists(workflow):
    called = re.findall(r"\bmake (?:--\w+ )*([a-z-]+)", workflow.read_text("utf-8"))
    assert called
    assert set(called) <= TARGETS
