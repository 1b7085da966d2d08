"""examples/crm-sync, deployed: it calls any webhook, with a token from Secrets Manager."""

import time

import boto3
import pytest

from crm_sync import CrmSync
from examples import Endpoint, Stream, change, deploy, eventually
from local_aws.secret import Secret

FETCH_INTERVAL = 10  # seconds between two fetches of a secret whose token the CRM refuses


@pytest.fixture(scope="module")
def token(local_aws):
    """The secret with the CRM's token."""
    return Secret(boto3.client("secretsmanager").create_secret(Name="crm-secret", SecretString="token-1\n")["ARN"])


@pytest.fixture(scope="module")
def webhook(token, local_aws):
    """The example, deployed for a webhook with one URL, which expects the token in its own header."""
    stream, crm = Stream(), Endpoint()
    with crm.serving() as url:
        outputs = deploy(
            "crm-sync",
            local_aws,
            StatusTopicArn=stream.arn,
            CrmUrl=url + "/hooks/catch?id=7",
            CrmMethod="POST",
            CrmTokenSecretArn=token.arn,
            CrmTokenHeader="x-api-token: {token}",
        )
        webhook = CrmSync(stream, crm, outputs)
        # The ten attempts of a message then take longer than the interval between two fetches.
        webhook.retry_after(3)
        crm.requires = ("x-api-token", "token-1")
        yield webhook


def test_a_webhook_gets_each_change_at_one_url_with_the_token_in_its_header(webhook):
    webhook.poll()
    webhook.stream.publish(change("hooked", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: webhook.stages("hooked"))
    [call] = [call for call in webhook.crm.took() if call[3]["leadId"] == "hooked"]
    body = {
        "eventId": "evt_hooked_1",
        "leadId": "hooked",
        "linkedinUrl": None,
        "campaignId": None,
        "stage": "qualified",
        "status": "OPPORTUNITY",
        "version": "001708768801000#evt_hooked_1",
    }
    assert call == ("POST", "/hooks/catch?id=7", "evt_hooked_1", body, True)
    assert webhook.crm.headers.get_all("x-api-token") == ["token-1"]


def test_a_rotated_token_is_used_without_a_deployment(webhook, token):
    webhook.poll()
    webhook.crm.requires = ("x-api-token", "token-2")
    webhook.stream.publish(change("rotated", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: webhook.attempts("rotated"))
    assert eventually(lambda: "held the token that the CRM refused" in webhook.log())
    token.put("token-2")
    assert eventually(lambda: webhook.stages("rotated") == ["qualified"])
    # If the last fetch was long enough ago, the function fetches the token and repeats the call at
    # once.
    time.sleep(FETCH_INTERVAL)
    webhook.crm.unauthorized = 403
    webhook.crm.requires = ("x-api-token", "token-3")
    token.put("token-3")
    webhook.stream.publish(change("rotated_again", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: webhook.stages("rotated_again") == ["qualified"])
    # There is only one attempt if a new process of the function has read the new token at its
    # start.
    assert webhook.attempts("rotated_again") in (1, 2)


@pytest.mark.parametrize(
    ("lead", "value", "fault"),
    [
        ("emptied", "\n", "is empty or binary"),
        ("json", '{"token": "t"}', "holds JSON"),
        ("broken", "token\r\nx: y", "holds blanks, control characters"),
        ("deleted", None, "could not be read"),
    ],
)
def test_without_a_usable_token_the_crm_is_not_called_and_nothing_is_lost(lead, value, fault, webhook, token):
    webhook.restart()
    webhook.poll()
    if value:
        token.put(value)
    else:
        boto3.client("secretsmanager").delete_secret(SecretId=token.arn, RecoveryWindowInDays=7)
    webhook.stream.publish(change(lead, 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: f"{token.arn} {fault}" in webhook.log()), webhook.log()
    assert not webhook.attempts(lead)
    if not value:
        boto3.client("secretsmanager").restore_secret(SecretId=token.arn)
    token.put("token-4")
    webhook.crm.requires = ("x-api-token", "token-4")
    assert eventually(lambda: webhook.stages(lead) == ["qualified"])


def test_the_log_never_shows_a_token(webhook):
    assert not [word for word in ("token-1", "token-2", "token-3", "token-4") if word in webhook.log()]
