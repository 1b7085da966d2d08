"""The command `pending`: lists the pending deliveries of a stack."""

import argparse
import time
from datetime import timedelta
from decimal import Decimal

from ops.deliveries import Deliveries
from ops.display import printable
from ops.running import use_local_run
from ops.stack import described, output_of


def run(given: argparse.Namespace) -> int:
    """Prints the list, and returns the exit status."""
    if not given.stack:
        use_local_run(given.run)
    rows = Deliveries(output_of(described(given.stack), "DeliveriesTableName")).pending()
    print(listing(rows, time.time()))
    return 0


def listing(rows: list[dict], now: float) -> str:
    """Returns the table that `pending` prints: alerts first, then the stream, each oldest first."""
    if not rows:
        return "Nothing is pending."
    lines = [("AGE", "ATTEMPTS", "DELIVERY", "LAST ERROR")]
    for row in sorted(rows, key=lambda row: (is_for_stream(row), _since(row))):
        held = "(in progress)" if row["leaseUntil"] > now * 1000 else "(the last attempt crashed)"
        cells = (age(row, now), row.get("attempts", 0), row["deliveryId"], row.get("lastError", held))
        lines.append(tuple(printable(str(cell)) for cell in cells))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, line, widths), line[3]]) for line in lines)


def is_for_stream(row: dict) -> bool:
    """Returns whether a row is a message of the lead status stream, from the end of its key."""
    return row["deliveryId"].split("#")[-1] == "status"


def age(row: dict, now: float) -> timedelta:
    """Returns the time since the first claim, at least 0: the function's clock may be ahead."""
    return timedelta(seconds=min(max(0, int(now - _since(row) / 1000)), 10**9))


def _since(row):
    """Returns when a row was first claimed, in milliseconds, even if someone edited the row."""
    since = row.get("firstSeenAt")
    return float(since if isinstance(since, Decimal) else row["leaseUntil"])
