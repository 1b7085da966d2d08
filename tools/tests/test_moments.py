"""The values that --since accepts."""

import pytest

from ops.errors import Refused
from ops.moments import moment

NOW = 1_795_636_800_000  # 2026-11-25T20:00:00Z


@pytest.mark.parametrize(("text", "minutes"), [("90m", 90), ("2h", 120), ("3d", 3 * 24 * 60)])
def test_accepts_a_time_span(text, minutes):
    assert moment(text, NOW) == NOW - minutes * 60_000


@pytest.mark.parametrize("text", ["2026-11-25T19:00:00Z", "2026-11-25T20:00:00+01:00", "2026-11-25T19:00:00z"])
def test_accepts_a_time_with_its_offset(text):
    assert moment(text, NOW) == NOW - 3_600_000


@pytest.mark.parametrize(
    "text",
    [
        *("", "2", "h", "0h", "-2h", "2 h", "2w", "\u0662h", "2h\n", "2026-11-25", "2026-11-25T19:00:00", "yesterday"),
        *("\x1b[2J", "0001-01-01T00:00:00+23:59"),
    ],
)
def test_refuses_anything_else(text):
    with pytest.raises(Refused, match=r"is not a time span such as 90m|is before 1970") as refused:
        moment(text, NOW)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("text", "why"), [("2026-11-25T20:00:01Z", "in the future"), ("999999d", "before 1970")])
def test_refuses_the_future_and_times_before_1970(text, why):
    with pytest.raises(Refused, match=why):
        moment(text, NOW)
