"""examples/crm-sync, deployed: it keeps a CRM in step with the lead status stream."""

import random
import time

import pytest

from crm_sync import CrmSync
from examples import Endpoint, Stream, change, deploy, depth, eventually
from local_aws.journey import STAGES

SEED = 6


@pytest.fixture(scope="module")
def sync(local_aws):
    stream, crm = Stream(), Endpoint()
    with crm.serving() as url:
        endpoint = {"CrmUrl": url + "/leads/{leadId}", "CrmMethod": "PUT"}
        sync = CrmSync(stream, crm, deploy("crm-sync", local_aws, StatusTopicArn=stream.arn, **endpoint))
        sync.retry_after(1)
        yield sync


def test_a_thousand_shuffled_changes_end_with_the_last_of_each_lead(sync):
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
        f"\n1000 changes of 50 leads, including 200 duplicates, in random order (seed {SEED}): {calls['with']} calls to"
        f" the CRM with a batch window (up to 1000 changes at once), {calls['without']} without",
        flush=True,
    )
    assert calls["with"] < calls["without"]


def test_a_refusing_crm_loses_no_change_and_gets_the_last_one_last(sync):
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
    sync.crm.delays = {"evt_slow_1": 3}
    sync.poll(BatchSize=1)
    sync.stream.publish(change("slow", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: not sync.crm.delays)
    sync.stream.publish(change("slow", 2, "DONE", "closed_won"))
    assert eventually(lambda: depth(sync.queue) == 0)
    assert sync.stages("slow")[-1] == "closed_won"
    assert sync.crm.overlaps == []


def test_a_call_that_takes_effect_late_does_not_undo_a_newer_one(sync):
    sync.retry_after(1)
    # The delay is longer than the function waits for an answer.
    sync.crm.delays = {"evt_late_1": 8}
    sync.poll(BatchSize=1)
    sync.stream.publish(change("late", 1, "OPPORTUNITY", "qualified"))
    assert eventually(lambda: not sync.crm.delays)
    sync.stream.publish(change("late", 2, "DONE", "closed_won"))
    assert eventually(lambda: depth(sync.queue) == 0, patience=90)
    assert eventually(sync.crm.is_idle)
    assert sync.stages("late")[-1] == "closed_won"
    assert sync.crm.overlaps == []


@pytest.mark.parametrize("status", [302, 303])
def test_a_redirect_counts_as_a_failure(status, sync):
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
    assert eventually(lambda: depth(sync.dead_letters) == 1), "the message should be in the dead-letter queue"
    assert depth(sync.queue) == 0


def test_without_a_token_a_refused_call_says_which_parameter_is_missing(sync):
    sync.retry_after(1)
    sync.poll()
    sync.crm.requires = ("authorization", "Bearer anything")
    sync.stream.publish(change("unauthorized", 1, "DONE", "closed_won"))
    assert eventually(lambda: sync.attempts("unauthorized"))
    assert eventually(lambda: "set CrmTokenSecretArn to the ARN of its secret" in sync.log())
    sync.crm.requires = None
    assert eventually(lambda: sync.stages("unauthorized") == ["closed_won"])
    assert "authorization" not in sync.crm.headers
