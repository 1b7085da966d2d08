"""Parses times that a user types, such as 2h or 2026-11-25T18:00:00Z."""

import re
from datetime import datetime, timezone
from typing import Optional

from ops.display import printable
from ops.errors import Refused

UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}  # in milliseconds
FORMS = "a time span such as 90m, 2h or 3d, or a time with its offset from UTC such as 2026-11-25T18:00:00Z"


def moment(text: str, now: float) -> int:
    """Returns the moment that a text such as 2h or 2026-11-25T18:00:00Z means.

    `now` and the result are in milliseconds since the Unix epoch. Raises Refused for any other
    text.
    """
    if span := re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text, re.ASCII):
        since = int(now) - int(span[1]) * UNITS[span[2]]
    else:
        time = with_offset(text)
        since = None if time is None else int(time.timestamp() * 1000)
    if since is None:
        raise Refused(f"--since {printable(text)} is not {FORMS}.")
    if since > now:
        raise Refused(f"--since {printable(text)} is in the future.")
    if since < 0:
        raise Refused(f"--since {printable(text)} is before 1970.")
    return since


def with_offset(text: str) -> Optional[datetime]:
    """Returns the time in a text, or None if the text is not a time with its offset from UTC."""
    try:
        # Python 3.10 and older do not parse the Z.
        time = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        time.timestamp()
        time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo else None
