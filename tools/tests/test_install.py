"""Installs the tools once, even if two processes start, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local_aws.install import is_installed
from source import ROOT

INSTALL = [sys.executable, "-B", "-m", "local_aws.install", ".venv", "tools.lock"]


@pytest.fixture
def clone(tmp_path):
    """A folder with an empty lock."""
    (tmp_path / "tools.lock").touch()
    (tmp_path / "tmp").mkdir()
    return tmp_path


def environment(clone):
    return {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "TMPDIR": str(clone / "tmp")}


def start(clone):
    return subprocess.Popen(
        INSTALL, cwd=clone, env=environment(clone), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def processes_in(folder):
    """Returns the processes whose arguments or working folder name this folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            named = (process / "cmdline").read_text() + str((process / "cwd").readlink())
        except OSError:
            continue
        found += [process.name] * (str(folder) in named)
    return found


def test_only_one_of_two_processes_installs(clone):
    printed = [process.communicate(timeout=120)[0] for process in [start(clone), start(clone)]]
    assert sorted(len(text.splitlines()) for text in printed) == [0, 1], printed
    assert (clone / ".venv" / "installed").exists()
    assert is_installed(clone / ".venv", clone / "tools.lock")
    os.utime(clone / "tools.lock", (time.time() + 60, time.time() + 60))
    assert not is_installed(clone / ".venv", clone / "tools.lock")


def test_a_failed_installation_says_why(clone):
    (clone / "tools.lock").write_text("-r nowhere.txt\n")
    process = start(clone)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "The tools could not be installed. The end of .local-aws/install.log:" in printed
    assert "nowhere.txt" in printed
    assert not (clone / ".venv" / "installed").exists()


def test_ends_with_its_parent_and_leaves_nothing(clone):
    shell = subprocess.Popen(
        ["sh", "-c", 'PARENT=$$ "$@" & wait', "-", *INSTALL],
        cwd=clone,
        env=environment(clone),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (clone / ".venv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(processes_in(clone)) > 1
    shell.kill()
    shell.wait()
    while (left := processes_in(clone)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert list((clone / "tmp").iterdir()) == []
    assert not (clone / ".venv" / "installed").exists()
