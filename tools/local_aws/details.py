"""The details of leads in a local run: a stand-in for SendPilot's API that knows the sample leads."""

from collections.abc import Iterator
from contextlib import contextmanager

from local_aws.sendpilot_api import SendPilotApi
from local_aws.service import Service

CAMPAIGN = {"id": "camp_xyz789", "name": "Q1 Outreach", "status": "ACTIVE"}
# The lead of the samples, and the lead of the commands that a run prints.
LEADS = (
    {
        "id": "lead_abc123",
        "linkedinUrl": "https://www.linkedin.com/in/john-doe",
        "firstName": "John",
        "lastName": "Doe",
        "title": "VP of Engineering",
        "company": "TechCorp",
        "status": "OPPORTUNITY",
        "campaignId": CAMPAIGN["id"],
        "updatedAt": "2026-01-15T09:30:00.000Z",
    },
    {
        "id": "lead_42",
        "linkedinUrl": "https://www.linkedin.com/in/jane-roe",
        "firstName": "Jane",
        "lastName": "Roe",
        "title": "Head of Sales",
        "company": "Example Inc.",
        "status": "OPPORTUNITY",
        "campaignId": CAMPAIGN["id"],
        "updatedAt": "2026-01-15T09:30:00.000Z",
    },
)


@contextmanager
def sample_api() -> Iterator[SendPilotApi]:
    """Runs a stand-in for SendPilot's API with the sample leads."""
    with SendPilotApi() as api:
        api.put_campaign(CAMPAIGN)
        for lead in LEADS:
            api.put_lead(lead)
        yield api


def parameters(api: SendPilotApi) -> dict[str, str]:
    """Returns the template's parameters for alerts with all details, from this API."""
    return {"RememberReplies": "yes", "LeadDetails": "yes", "SendPilotApiUrl": api.url}


def store_key(deployed: Service, api: SendPilotApi) -> None:
    """Stores the API's key, unless the service asks another API or none."""
    if deployed.api_key and deployed.parameters["SendPilotApiUrl"] == api.url:
        deployed.api_key.put(api.key)
