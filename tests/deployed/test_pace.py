"""The slots in the deployed table, by which `resend` keeps the pace of the functions."""

import re
import threading
import time
from unittest import mock

import pytest

from faults import hooked
from ops import pace
from ops.pace import Pace, WrongClock

NOW = 1795636800000  # 2026-11-25T20:00:00Z in milliseconds


class Clock:
    """A clock that moves only during a sleep."""

    def __init__(self, now, oversleeps=()):
        self.now, self.slept, self._oversleeps = now, [], list(oversleeps)

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 3))
        self.now += seconds + (self._oversleeps.pop(0) if self._oversleeps else 0)


def test_a_moment_belongs_to_the_slot_that_started_last():
    for rate in (1, 3, 5, 7, 100):
        for now in (NOW, NOW + 1, NOW + 199, NOW + 200, NOW + 333, NOW + 334, NOW + 999):
            slot = pace.slot_at(now, rate)
            assert pace.start_of(slot, rate) <= now
            assert pace.start_of(slot + 1, rate) > now
    assert [pace.start_of(pace.slot_at(NOW, 3) + step, 3) - NOW for step in range(4)] == [0, 334, 667, 1000]


def test_concurrent_publishers_share_the_slots(table_name):
    rate, ready = 20, []

    def publish():
        pace = Pace(table_name, rate)
        for _ in range(10):
            pace.wait()
            ready.append(time.time())

    publishers = [threading.Thread(target=publish) for _ in range(3)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    ready.sort()
    assert len(ready) == 30
    # A publisher returns some milliseconds after the start of its slot, and never before.
    for first, later in zip(ready, ready[rate + 1 :], strict=False):
        assert later - first > 0.9


def test_a_slot_has_a_row_that_expires(deployed, table_name):
    clock = Clock(NOW / 1000)
    with mock.patch.object(pace, "MAX_SKEW", float("inf")):
        for _ in range(3):
            Pace(table_name, 5, clock).wait()
    assert clock.slept == [0, 0.2, 0.2]
    for start in (NOW, NOW + 200, NOW + 400):
        row = deployed.deliveries.row(f"{start}#slot")
        assert re.search("^resend/[0-9a-f]{16}$", row.pop("owner"))
        assert row == {"deliveryId": f"{start}#slot", "expiresAt": NOW // 1000 + 3600}
    # A publisher does not use its slot for a second alert.
    with mock.patch.object(pace, "MAX_SKEW", float("inf")):
        again = Pace(table_name, 5, clock)
        again.wait()
        again.wait()
    assert clock.slept[3:] == [0.2, 0.2]


def test_a_missed_slot_is_not_used(deployed, table_name):
    clock = Clock(NOW / 1000 + 60, oversleeps=[2])
    with mock.patch.object(pace, "MAX_SKEW", float("inf")):
        Pace(table_name, 5, clock).wait()
    assert clock.slept == [0, 0]
    assert deployed.deliveries.row(f"{NOW + 60_000}#slot")
    assert deployed.deliveries.row(f"{NOW + 62_000}#slot")


def test_over_a_slow_network_a_slot_is_taken_ahead(deployed, table_name):
    clock, began = Clock(NOW / 1000 + 120), NOW + 120_000

    def pass_time(**_):
        assert clock.now < NOW / 1000 + 130, "a slot should be usable"
        clock.now += 1.5

    with mock.patch.object(pace, "MAX_SKEW", float("inf")), hooked("before-call.dynamodb.UpdateItem", pass_time):
        Pace(table_name, 5, clock).wait()
    assert clock.slept == [0, 0]
    # The first slot was over when its answer came. The second slot starts when its answer comes.
    for start in (began, began + 3000):
        assert deployed.deliveries.row(f"{start}#slot"), start - began


def test_zero_means_no_pace(table_name):
    clock = Clock(NOW / 1000)
    Pace(table_name, 0, clock).wait()
    assert clock.slept == []


@pytest.mark.parametrize(("seconds", "way"), [(60, "ahead of"), (-60, "behind")])
def test_it_refuses_a_wrong_clock(seconds, way, table_name):
    with pytest.raises(WrongClock, match=rf"\d\d seconds {way} AWS's"):
        Pace(table_name, 5, Clock(time.time() + seconds)).wait()
