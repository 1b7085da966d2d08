"""The verdict of `make journey`. tests/deployed/test_stream.py has the journey itself."""

import pytest

from local_aws.inbox import Message
from local_aws.journey import STAGES, SUBSCRIBERS, Step, faults_of, statuses


def message(status):
    return Message("id", None, "{}", {}, {"crmStage": STAGES[status]}, None, 0)


@pytest.fixture
def steps():
    """A journey on which every subscriber got the expected messages."""
    lost, won = ("NOT_INTERESTED",), ("OPPORTUNITY", "DONE")
    return [
        Step(
            status,
            f"evt_{status}",
            "200 alerted" if status == "OPPORTUNITY" else "200 streamed",
            [message(status)] * (status == "OPPORTUNITY"),
            {
                "archive": [message(status)],
                "lost leads": [message(status)] * (status in lost),
                "sales": [message(status)] * (status in won),
            },
        )
        for status in statuses()
    ]


def test_an_expected_journey_has_no_fault(steps):
    assert faults_of(steps) == []


@pytest.mark.parametrize("subscriber", SUBSCRIBERS)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_missing_and_extra_messages_are_faults(subscriber, number, steps):
    for step in steps:
        expected = len(step.received[subscriber])
        step.received[subscriber] = [message(step.status)] * number
        faults = faults_of(steps)
        assert (faults == []) == (number == expected)
        assert all(fault.startswith(f"{step.status}: {subscriber} got {number}") for fault in faults)
        step.received[subscriber] = [message(step.status)] * expected


def test_missing_and_extra_alerts_are_faults(steps):
    for step in steps:
        alerts = step.alerts
        step.alerts = [message(step.status)] * (1 - len(alerts))
        assert faults_of(steps) == [f"{step.status}: alerts got {len(step.alerts)} instead of {len(alerts)}"]
        step.alerts = alerts


def test_other_answers_and_wrong_stages_are_faults(steps):
    steps[0].answer = "503 unavailable"
    steps[1].received["archive"] = [Message("id", None, "{}", {}, {"crmStage": "nowhere"}, None, 0)]
    assert faults_of(steps) == [
        f"{steps[0].status}: answered 503 unavailable",
        f"{steps[1].status}: the stage is nowhere instead of {STAGES[steps[1].status]}",
    ]
