"""The verdict of `make missed`. tests/deployed/test_local_run.py has the whole command."""

from types import SimpleNamespace

import pytest

from local_aws.inbox import Message
from local_aws.missed import LEAD, Steps, faults_of, said
from local_aws.progress import Failed
from local_aws.scheduled import FunctionFailed

FOUND = {"foundBy": "reconciliation", "lead": {"lastName": LEAD["lastName"]}}


def alerts(*events):
    return [Message("id", None, "{}", {"id": id, "data": data}, {}, None, 0) for id, data in events]


@pytest.mark.parametrize(
    ("received", "faults"),
    [
        ([("evt_1", FOUND)], []),
        ([], ["The alerts of the change have the ids [] instead of one: evt_[0-9]"]),
        (
            [("evt_1", FOUND), ("evt_1", FOUND)],
            ["The alerts of the change have the ids ['evt_1', 'evt_1'] instead of "],
        ),
        ([("evt_12", FOUND)], ["The alerts of the change have the ids ['evt_12'] instead of one: evt_[0-9]"]),
        ([("evt_1", {**FOUND, "lead": {}})], ["The alert of the change has no details of the lead"]),
        (
            [("evt_1", {})],
            [
                "The alert of the change has foundBy None instead of reconciliation",
                "The alert of the change has no details of the lead",
            ],
        ),
    ],
)
def test_names_each_difference_from_the_one_expected_alert(received, faults):
    found = faults_of("the change", alerts(*received), "evt_[0-9]", "reconciliation")
    assert len(found) == len(faults)
    assert all(one.startswith(fault) for one, fault in zip(found, faults, strict=True)), found


def test_a_report_is_the_outcome_and_each_count_over_0():
    report = {"outcome": "complete", "requests": 2, "leads": 3, "baseline": 0, "missed": 2, "alerted": 1, "pending": 1}
    assert said(report) == "complete: missed 2, alerted 1, pending 1"
    assert said({"outcome": "in_progress", "missed": 0}) == "in_progress"


def steps(answer):
    def run(_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Steps(SimpleNamespace(reconciliation=SimpleNamespace(run=run)), everything=False)


def test_another_answer_is_a_fault(capsys):
    for missed, faults in ((1, []), (2, ["A run: complete: missed 2 instead of complete: missed 1"])):
        taken = steps({"outcome": "complete", "missed": missed})
        taken.reconcile("A run", "complete: missed 1")
        assert capsys.readouterr().out.endswith(f"complete: missed {missed}\n")
        assert taken.faults == faults


def test_a_failed_run_is_the_end():
    failed = FunctionFailed({"errorType": "Reconcile", "errorMessage": "no \x1b key"})
    with pytest.raises(Failed, match=r"^FAILED  A run: Reconcile: no \\x1b key$"):
        steps(failed).reconcile("A run", "complete")
