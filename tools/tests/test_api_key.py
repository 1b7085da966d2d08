"""The API key of SendPilot: which values are a key, and what SendPilot says about it.

tests/deployed/test_doctor.py runs the doctor with a key.
"""

import json
import time

import pytest

from local_aws.sendpilot_api import KEY, SendPilotApi
from ops import request, sendpilot_api
from ops.secret_value import NoSecret, api_key_in
from ops.sendpilot_api import LACKS_SCOPES, NEEDED_SCOPES, REFUSED, UNCLEAR, WORKS, fault_of_url, verdict
from source import ROOT

# Values of the secret, each with its key or its fault. The function's tests read the same file.
VALUES = json.loads((ROOT / "tests" / "support" / "api_keys.json").read_text("utf-8"))


@pytest.fixture
def api():
    with SendPilotApi() as api:
        yield api


@pytest.mark.parametrize("row", VALUES, ids=lambda row: str(row["value"]))
def test_judges_a_value_as_the_function_does_and_never_quotes_it(row):
    try:
        found = {"key": api_key_in(row["value"])}
    except ValueError as error:
        found = {"fault": str(error)}
        assert isinstance(error, NoSecret) == str(error).startswith("holds no API key")
        assert KEY not in str(error)
    assert found == {name: row[name] for name in row if name != "value"}


def test_refuses_deeply_nested_json():
    with pytest.raises(ValueError, match=r"^is JSON, but not"):
        api_key_in("[" * 100_000)


def test_a_key_works(api):
    for path in ("", "/", "/api"):
        assert verdict(api.url + path, KEY).kind == WORKS
    assert [one.path for one in api.requests()] == ["/v1/me", "/v1/me", "/api/v1/me"]
    assert {one.headers["x-api-key"] for one in api.requests()} == {KEY}
    assert {one.headers["user-agent"] for one in api.requests()} == {"sendpilot-opportunity-alerts"}


def test_a_wrong_key_is_refused(api):
    assert verdict(api.url, "sp_live_other").kind == REFUSED


def test_names_the_missing_scopes(api):
    api.scopes = ["senders:read"]
    found = verdict(api.url, KEY)
    assert (found.kind, found.scopes) == (LACKS_SCOPES, ("leads:read", "workspace:read"))
    api.answer("/v1/me", status=403, body={"statusCode": 403, "missingScopes": ["leads:read"]})
    assert verdict(api.url, KEY).scopes == ("leads:read",)
    api.answer("/v1/me", status=403, body={"statusCode": 403, "message": "Forbidden"})
    assert verdict(api.url, KEY).scopes == NEEDED_SCOPES


@pytest.mark.parametrize(
    "listed", ["leads:read", None, {}, [7, None, "leads:write", "senders:read", "x\x1b[2Jleads:read"]]
)
def test_ignores_scopes_that_it_does_not_need_or_know(listed, api):
    api.answer("/v1/me", body={"missingScopes": listed})
    assert verdict(api.url, KEY).kind == WORKS


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "body": {"statusCode": 404}},
        {"status": 429, "body": {"statusCode": 429}},
        {"status": 503, "body": "unavailable"},
        {"status": 403, "body": "<html>blocked</html>"},
        {"body": "<html>hello</html>"},
        {"body": "[]"},
        {"body": "{", "huge": 1024 * 1024},
        {"half": True},
        {"status": 302, "headers": {"Location": "/v1/elsewhere"}, "body": ""},
    ],
    ids=str,
)
def test_an_undocumented_answer_says_nothing_about_the_key(answer, api):
    api.answer("/v1/me", **answer)
    found = verdict(api.url, KEY)
    assert found.kind == UNCLEAR
    assert f"answers {answer.get('status', 200)}" in found.what
    # The doctor does not follow the redirect.
    assert len(api.requests()) == 1


@pytest.mark.parametrize("fault", [{"hang": True}, {"close": True}], ids=str)
def test_a_missing_answer_says_nothing_about_the_key(fault, api, monkeypatch):
    monkeypatch.setattr(sendpilot_api, "TIMEOUT", 0.2)
    api.answer("/v1/me", **fault)
    began = time.monotonic()
    with pytest.raises(request.NoAnswer):
        verdict(api.url, KEY)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "url",
    [
        "https://api.sendpilot.ai",
        "https://eu.example/api/",
        "http://localhost:1",
        "http://127.0.0.1/api",
        "http://[::1]:8",
    ],
)
def test_accepts_https_and_this_machine(url):
    assert fault_of_url(url) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://api.sendpilot.ai", "unencrypted"),
        ("http://127.0.0.1.example", "unencrypted"),
        ("http://localhost@example.com", "user name"),
        ("ftp://127.0.0.1", "https://"),
        ("api.sendpilot.ai", "https://"),
        ("https://", "host"),
        ("https://api.sendpilot.ai?a=b", "query"),
        ("https://api.sendpilot.ai/#a", "fragment"),
    ],
)
def test_refuses_another_address(url, fault):
    assert fault in fault_of_url(url)
