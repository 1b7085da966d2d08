"""The stand-in for SendPilot's API as a process, its key, and its lists of leads.

tests/wire/sendpilot_api.rs has its other answers.
"""

import json
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from local_aws.details import parameters, sample_api, store_key
from local_aws.sendpilot_api import KEY, SendPilotApi
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


def listed(api, query, limit=100):
    """Returns the status of a list of leads, and the ids of the leads on all pages."""
    ids, page, pages = [], 1, 1
    while page <= pages:
        path = f"/v1/leads?campaignId=camp_1{query}&page={page}&limit={limit}"
        answer = request.exchange("GET", f"{api.url}{path}", headers={"X-API-Key": KEY})
        if answer.status != 200:
            return answer.status, ids
        ids += [lead["id"] for lead in answer.json()["leads"]]
        page, pages = page + 1, answer.json()["pagination"]["totalPages"]
    return 200, ids


def control(api, path, value):
    """Sends a value to the stand-in, as a test in another language does. Returns the answer's status."""
    return request.exchange("PUT", f"{api.url}/stand-in/{path}", json.dumps(value).encode()).status


def test_lists_leads_in_pages_by_status_and_in_an_order():
    leads = [
        {"id": "lead_1", "campaignId": "camp_1", "status": "OPPORTUNITY", "updatedAt": "2026-11-26T10:02:00.000Z"},
        {"id": "lead_2", "campaignId": "camp_1", "status": "DONE", "updatedAt": "2026-11-26T10:01:00.000Z"},
        {"id": "lead_3", "campaignId": "camp_1", "status": "OPPORTUNITY", "updatedAt": "2026-11-26T10:03:00.000Z"},
        {"id": "lead_4", "campaignId": "camp_2", "status": "OPPORTUNITY"},
    ]
    with SendPilotApi() as api:
        assert control(api, "leads", leads) == 200
        for order, ids in {"added": [1, 2, 3], "newest": [3, 1, 2], "oldest": [2, 1, 3]}.items():
            assert control(api, "settings", {"order": order}) == 200
            for limit in (1, 2, 100):
                assert listed(api, "", limit) == (200, [f"lead_{number}" for number in ids])
        assert listed(api, "&status=OPPORTUNITY", 1) == (200, ["lead_1", "lead_3"])
        assert control(api, "settings", {"filters": False}) == 200
        assert listed(api, "&status=OPPORTUNITY") == (200, ["lead_2", "lead_1", "lead_3"])
        assert control(api, "settings", {"statuses": ["DONE"]}) == 200
        assert listed(api, "&status=OPPORTUNITY") == (400, [])
        assert control(api, "leads", leads[0] | {"updatedAt": "2026-11-26T10:04:00.000Z"}) == 200
        assert listed(api, "") == (200, ["lead_2", "lead_3", "lead_1"])
        assert control(api, "settings", {"sorting": "newest"}) == 400
