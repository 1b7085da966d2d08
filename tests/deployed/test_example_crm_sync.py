"""examples/crm-sync, deployed: it keeps a CRM in step with the lead status stream."""

import json
import random
import time

import boto3
import pytest

from examples import MAX_BATCH, Endpoint, Stream, change, deploy, depth, eventually
from local_aws.journey import STAGES
from local_aws.secret import Secret

SEED = 6
LOOK_INTERVAL = 10  # seconds between two looks of the function at a secret whose token the CRM refuses


class CrmSync:
    """The deployed example, its stream, and the CRM that it calls."""

    def __init__(self, stream, crm, url, outputs):
        self.stream, self.crm, self.url = stream, crm, url
        self.queue, self.dead_letters = outputs["QueueUrl"], outputs["DeadLettersUrl"]
        self._function, self._table, self._log = outputs["FunctionName"], outputs["TableName"], outputs["LogGroupName"]
        mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        [mapping] = [one for one in mappings if one["EventSourceArn"].endswith(self.queue.rsplit("/", 1)[1])]
        self._mapping = mapping["UUID"]

    def restart(self):
        """Replaces the function's processes, as Lambda does at times."""
        environment = boto3.client("lambda").get_function_configuration(FunctionName=self._function)["Environment"]
        environment["Variables"]["RESTARTS"] = str(time.time())
        boto3.client("lambda").update_function_configuration(FunctionName=self._function, Environment=environment)

    def poll(self, **settings):
        """Has the function read its queue, in batches of this size."""
        boto3.client("lambda").update_event_source_mapping(UUID=self._mapping, Enabled=True, **settings)

    def pause(self):
        boto3.client("lambda").update_event_source_mapping(UUID=self._mapping, Enabled=False)

    def retry_after(self, seconds):
        """Has a failed message come again after some seconds. In the template it is minutes, too long for a test."""
        attributes = {"VisibilityTimeout": str(seconds)}
        boto3.client("sqs").set_queue_attributes(QueueUrl=self.queue, Attributes=attributes)

    def read_by_window(self, size=1000):
        """Has the function read what a window collects. The emulator has no windows, and batches of ten at most."""
        sqs, received = boto3.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=MAX_BATCH).get("Messages"):
            received += messages
        for start in range(0, len(received), size):
            batch = received[start : start + size]
            records = [{"messageId": one["MessageId"], "body": one["Body"], "eventSource": "aws:sqs"} for one in batch]
            payload = json.dumps({"Records": records})
            answer = boto3.client("lambda").invoke(FunctionName=self._function, Payload=payload)
            assert json.load(answer["Payload"]) == {"batchItemFailures": []}
        for start in range(0, len(received), MAX_BATCH):
            batch = received[start : start + MAX_BATCH]
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(batch)]
            sqs.delete_message_batch(QueueUrl=self.queue, Entries=entries)

    def read_one_by_one(self):
        """Has the function read each message in a batch of its own, some at once."""
        self.poll(BatchSize=1)
        assert eventually(lambda: depth(self.queue) == 0, patience=150), "the queue is not empty yet"

    def rows(self):
        """Returns the rows of the table, by lead."""
        pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=self._table)
        return {row["lead"]["S"].split("#")[1]: row for page in pages for row in page["Items"]}

    def stages(self, lead):
        """Returns the stages that the CRM took for a lead, in order."""
        return [body["stage"] for _, _, _, body, _ in self.crm.took() if body["leadId"] == lead]

    def attempts(self, lead):
        """Returns the number of calls to the CRM for a lead, those that it refused included."""
        return len([body for _, _, _, body, _ in self.crm.calls() if body["leadId"] == lead])

    def log(self):
        """Returns the text of the function's log."""
        pages = boto3.client("logs").get_paginator("filter_log_events").paginate(logGroupName=self._log)
        return "\n".join(event["message"] for page in pages for event in page["events"])


@pytest.fixture(scope="module")
def sync(local_aws):
    stream, crm = Stream(), Endpoint()
    with crm.serving() as url:
        endpoint = {"CrmUrl": url + "/leads/{leadId}", "CrmMethod": "PUT"}
        sync = CrmSync(stream, crm, url, deploy("crm-sync", local_aws, StatusTopicArn=stream.arn, **endpoint))
        sync.retry_after(1)
        yield sync


@pytest.fixture(scope="module")
def token(local_aws):
    """The secret with the CRM's token."""
    return Secret(boto3.client("secretsmanager").create_secret(Name="crm-token", SecretString="token-1\n")["ARN"])


@pytest.fixture(scope="module")
def webhook(sync, token, local_aws):
    """The example, redeployed for a webhook that has one URL and wants the token in a header of its own."""
    outputs = deploy(
        "crm-sync",
        local_aws,
        StatusTopicArn=sync.stream.arn,
        CrmUrl=sync.url + "/hooks/catch?id=7",
        CrmMethod="POST",
        CrmTokenSecretArn=token.arn,
        CrmTokenHeader="x-api-token: {token}",
    )
    webhook = CrmSync(sync.stream, sync.crm, sync.url, outputs)
    # Longer than the function waits between two looks at the secret, with the ten attempts of a message.
    webhook.retry_after(3)
    webhook.crm.requires = ("x-api-token", "token-1")
    yield webhook
    webhook.crm.requires = None


def test_a_thousand_shuffled_changes_end_in_the_last_of_each_lead(sync):
    sync.retry_after(60)
    calls = {}
    for name, read in [("with", sync.read_by_window), ("without", sync.read_one_by_one)]:
        chance = random.Random(SEED)
        leads = [f"lead_{name}_{number}" for number in range(50)]
        changes, last = [], {}
        for number in range(800):
            lead, (status, stage) = chance.choice(leads), chance.choice(list(STAGES.items()))
            changes.append(change(lead, number, status, stage))
            last[lead] = (number, stage)
        changes += chance.choices(changes, k=200)
        chance.shuffle(changes)
        before = len(sync.crm.took())
        sync.pause()
        sync.stream.publish(*changes)
        read()
        taken = sync.crm.took()[before:]
        calls[name] = len(taken)
        final = {path.removeprefix("/leads/").replace("%5F", "_"): body["stage"] for _, path, _, body, _ in taken}
        assert final == {lead: stage for lead, (_, stage) in last.items()}
        rows = sync.rows()
        for lead, (number, stage) in last.items():
            assert rows[lead]["stage"]["S"] == stage
            assert rows[lead]["version"]["S"].endswith(f"#evt_{lead}_{number}")
            assert "owner" not in rows[lead]
    print(
        f"\n1000 changes over 50 leads, 200 of them repeated, in random order (seed {SEED}): {calls['with']} calls to"
        f" the CRM with a batch window (up to 1000 changes at once), {calls['without']} without",
        flush=True,
    )
    assert calls["with"] < calls["without"]


def test_while_the_crm_refuses_nothing_is_lost_and_nothing_old_is_sent_last(sync):
    sync.retry_after(1)
    sync.poll()
    sync.crm.answers = 503
    sync.stream.publish(change("refused", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: [call for call in sync.crm.calls() if not call[4]])
    sync.stream.publish(change("refused", 2, "DONE", "closed_won"))
    sync.crm.answers = 200
    assert eventually(lambda: depth(sync.queue) == 0)
    assert sync.stages("refused")[-1] == "closed_won"


def test_a_slow_crm_gets_one_call_at_a_time_for_a_lead(sync):
    sync.retry_after(1)
    sync.crm.dawdles = {"evt_slow_1": 3}
    sync.poll(BatchSize=1)
    sync.stream.publish(change("slow", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: not sync.crm.dawdles)
    sync.stream.publish(change("slow", 2, "DONE", "closed_won"))
    assert eventually(lambda: depth(sync.queue) == 0)
    assert sync.stages("slow")[-1] == "closed_won"
    assert sync.crm.overlaps == []


def test_a_call_that_takes_effect_late_does_not_undo_a_newer_one(sync):
    sync.retry_after(1)
    # Longer than the function waits for an answer.
    sync.crm.dawdles = {"evt_late_1": 8}
    sync.poll(BatchSize=1)
    sync.stream.publish(change("late", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: not sync.crm.dawdles)
    sync.stream.publish(change("late", 2, "DONE", "closed_won"))
    assert eventually(lambda: depth(sync.queue) == 0, patience=90)
    assert eventually(sync.crm.is_idle)
    assert sync.stages("late")[-1] == "closed_won"
    assert sync.crm.overlaps == []


@pytest.mark.parametrize("status", [302, 303])
def test_a_redirect_is_not_an_acceptance(status, sync):
    sync.retry_after(1)
    sync.poll()
    sync.crm.answers = status
    sync.stream.publish(change(f"redirected{status}", 1, "DONE", "closed_won"))
    assert eventually(lambda: [one for one in sync.crm.calls() if one[1].endswith(str(status))])
    time.sleep(0.5)
    sync.crm.answers = 200
    assert eventually(lambda: depth(sync.queue) == 0)
    assert sync.stages(f"redirected{status}")[-1] == "closed_won"


def test_a_message_that_is_not_a_change_becomes_a_dead_letter_and_delays_no_other(sync):
    sync.retry_after(1)
    sync.poll()
    sync.stream.publish_text("no event")
    sync.stream.publish(change("behind", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: sync.stages("behind"))
    assert eventually(lambda: depth(sync.dead_letters) == 1), "not in the dead letters"
    assert depth(sync.queue) == 0


def test_without_a_token_a_refused_call_says_which_parameter_is_missing(sync):
    sync.retry_after(1)
    sync.poll()
    sync.crm.requires = ("authorization", "Bearer anything")
    sync.stream.publish(change("unauthorized", 1, "DONE", "closed_won"))
    assert eventually(lambda: sync.attempts("unauthorized"))
    assert eventually(lambda: "give the ARN of its secret as CrmTokenSecretArn" in sync.log())
    sync.crm.requires = None
    assert eventually(lambda: sync.stages("unauthorized") == ["closed_won"])
    assert "authorization" not in sync.crm.headers


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
    assert eventually(lambda: "still holds the token that the CRM refused" in webhook.log())
    token.put("token-2")
    assert eventually(lambda: webhook.stages("rotated") == ["qualified"])
    # A function that has not looked at the secret for a while repeats the call at once.
    time.sleep(LOOK_INTERVAL)
    webhook.crm.unauthorized = 403
    webhook.crm.requires = ("x-api-token", "token-3")
    token.put("token-3")
    webhook.stream.publish(change("rotated_again", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: webhook.stages("rotated_again") == ["qualified"])
    assert webhook.attempts("rotated_again") == 2


@pytest.mark.parametrize(
    ("lead", "value", "fault"),
    [
        ("emptied", "\n", "is empty or binary"),
        ("json", '{"token": "t"}', "holds JSON"),
        ("broken", "token\r\nx: y", "holds blanks, control characters"),
        ("deleted", None, "could not be read"),
    ],
)
def test_without_a_usable_token_nobody_is_called_and_nothing_is_lost(lead, value, fault, webhook, token):
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
