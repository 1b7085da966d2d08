"""The stand-in for SendPilot's API as a process, and its key. tests/wire/sendpilot_api.rs has its answers."""

import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from local_aws.details import parameters, sample_api, store_key
from ops import request
from source import ROOT

PROGRAM = [sys.executable, "-B", str(ROOT / "tools" / "local_aws" / "sendpilot_api.py")]


def answers(url):
    """Returns whether a server is at this URL."""
    try:
        return request.exchange("GET", f"{url}/v1/me", b"").status == 401
    except request.NoAnswer:
        return False


def test_prints_its_url_and_ends_when_its_input_closes():
    with subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        process.stdin.close()
        assert process.wait(5) == 0
    assert not answers(url)


def test_ends_with_its_parent():
    # The test holds the other end of the input, so only the parent's end can be the reason.
    parent = """
        import subprocess, sys
        process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
        print(process.stdout.readline(), end="", flush=True)
        process.wait()
    """
    command = [sys.executable, "-c", textwrap.dedent(parent), *PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        process.kill()
        process.wait(5)
        deadline = time.monotonic() + 5
        while answers(url) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not answers(url)


@pytest.mark.parametrize(("given", "stores"), [({}, True), ({"SendPilotApiUrl": "https://api.sendpilot.ai"}, False)])
def test_only_a_service_that_asks_the_stand_in_gets_its_key(given, stores):
    with sample_api() as api:
        deployed = SimpleNamespace(parameters={**parameters(api), **given}, api_key=Mock())
        store_key(deployed, api)
        assert deployed.api_key.put.called == stores
        store_key(SimpleNamespace(parameters={"LeadDetails": "no"}, api_key=None), api)
