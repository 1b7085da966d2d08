"""The details of a lead in the deployed template's alerts, from a stand-in for SendPilot's API.

The local AWS enforces IAM, so each option must bring the permissions that the function needs.
"""

import re
import time
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest

from local_aws.details import parameters, sample_api
from ops import request
from ops.logs import Log
from ops.stack import NAME, log_group

# With another path in the URL, the function starts again. So it does not pause after an earlier
# failure.
PATHS = (f"/{number}" for number in count())
REPLY = "Sounds interesting. Can we talk on Tuesday?"
LEAD = {"firstName": "John", "lastName": "Doe", "title": "VP of Engineering", "company": "TechCorp"}


@pytest.fixture(scope="module")
def api():
    with sample_api() as api:
        yield api


@pytest.fixture
def inbox(deployed, open_inbox):
    return open_inbox(deployed.topic_arn)


@pytest.fixture
def alert(inbox, post):
    """Sends the sample opportunity, and returns its alert's data and its log line."""

    def alert(lead="lead_abc123"):
        event = request.sample("opportunity").renewed().with_data(leadId=lead)
        answer = post(event)
        assert (answer.status, answer.outcome()) == (200, "alerted"), answer.body
        [message] = inbox.collect(expected=1)
        return message.event["data"], log_line(event.event_id())

    return alert


def log_line(event_id):
    """Waits for the log line of an event, and returns its fields."""
    log = Log({"webhook": log_group(NAME, "webhook")}, since=0)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for fields in (line.fields() for line in log.new_lines()):
            if fields.get("eventId") == event_id:
                return fields
        time.sleep(0.1)
    raise AssertionError(f"no log line of {event_id}")


def reply(lead, **members):
    """Returns a reply of this lead, at the present time."""
    return request.sample("reply").renewed().with_data(leadId=lead, **members)


def details(data):
    """Returns the part of an alert's data that the details make."""
    return {name: data[name] for name in ("lead", "campaignName", "lastReply") if name in data}


def test_an_alert_has_the_leads_details_and_last_reply(deployed, api, alert, post):
    deployed.redeploy(**parameters(api))
    deployed.api_key.put(api.key)
    earlier = reply("lead_abc123", reply="Not now.").at(datetime.now(timezone.utc) - timedelta(hours=1))
    for event in (earlier, reply("lead_abc123"), earlier):
        answer = post(event)
        assert (answer.status, answer.outcome()) == (200, "remembered"), answer.body
    api.forget_requests()
    data, line = alert()
    assert details(data)["lead"] == LEAD
    assert data["campaignName"] == "Q1 Outreach"
    assert data["lastReply"]["text"] == REPLY
    assert line["details"] == "lead, campaign, reply"
    assert "detailsFailure" not in line
    assert not re.search("Doe|TechCorp|Outreach|interesting", str(line))
    assert [one.path for one in api.requests()] == ["/v1/leads/lead_abc123", "/v1/campaigns?page=1&limit=100"]
    # The campaign's name and the key are known by now, and nobody has replied for this lead.
    data, _ = alert("lead_42")
    assert (data["lead"]["firstName"], data["campaignName"], "lastReply" in data) == ("Jane", "Q1 Outreach", False)
    assert [one.path for one in api.requests()][2:] == ["/v1/leads/lead_42"]


def test_replies_need_no_api_key(deployed, api, alert, post):
    deployed.redeploy(RememberReplies="yes")
    assert deployed.api_key is None
    api.forget_requests()
    assert post(reply("lead_7")).outcome() == "remembered"
    data, line = alert("lead_7")
    assert details(data).keys() == {"lastReply"}
    assert line["details"] == "reply"
    assert api.requests() == []


def test_the_api_needs_no_replies(deployed, api, alert, post):
    deployed.redeploy(LeadDetails="yes", SendPilotApiUrl=f"{api.url}/api")
    deployed.api_key.put(f'{{"apiKey": "{api.key}"}}')
    assert post(reply("lead_abc123")).outcome() == "ignored"
    data, line = alert()
    assert details(data) == {"lead": LEAD, "campaignName": "Q1 Outreach"}
    assert line["details"] == "lead, campaign"


@pytest.mark.parametrize(
    ("key", "failure"),
    [('{"apiKey":""}', "the secret of the API key holds no API key"), ("sp_live_other", "refused the API key")],
)
def test_an_unusable_key_costs_only_the_details(key, failure, deployed, api, alert):
    deployed.redeploy(LeadDetails="yes", SendPilotApiUrl=f"{api.url}{next(PATHS)}")
    deployed.api_key.put(key)
    data, line = alert()
    assert details(data) == {}
    assert (line["details"], line["ApiKeyUnusable"]) == ("", 1)
    assert failure in line["detailsFailure"]


@pytest.mark.parametrize("fault", [{"hang": True}, {"close": True}])
def test_an_api_in_trouble_costs_only_the_details(fault, deployed, api, alert, post, cleanup):
    deployed.redeploy(**{**parameters(api), "SendPilotApiUrl": f"{api.url}{next(PATHS)}"})
    deployed.api_key.put(api.key)
    api.answer("/", **fault)
    cleanup.callback(api.clear)
    assert post(reply("lead_abc123")).outcome() == "remembered"
    before = time.monotonic()
    data, line = alert()
    assert time.monotonic() - before < 10
    assert details(data).keys() == {"lastReply"}
    assert line["details"] == "reply"
    assert line["DetailsTime"] < 2000
    assert "SendPilot's API" in line["detailsFailure"]
