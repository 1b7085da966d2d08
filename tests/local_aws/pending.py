"""`make pending`: lists the alerts of a deployed stack that are not out yet, the oldest first."""

import argparse
import sys
import time
from datetime import timedelta
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.deliveries import Deliveries
from local_aws.emulator import know_only
from local_aws.function import RUNNING
from local_aws.stack import NAME, outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", help="a deployed stack; without it, what `make run` runs")
    arguments = parser.parse_args()
    if not arguments.stack:
        _use_local_aws()
    try:
        rows = Deliveries(outputs(arguments.stack or NAME)["DeliveriesTableName"]).pending()
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"{error}")
    print(listing(rows, time.time()))


def _use_local_aws():
    if not RUNNING.exists():
        sys.exit("Nothing runs here. Start `make run` in another terminal, or name a deployed stack by STACK=...")
    url = urlsplit(RUNNING.read_text())
    know_only(f"{url.scheme}://{url.netloc}")


def listing(rows, now):
    """The rows of the sparse index as a table for people."""
    if not rows:
        return "Nothing is pending."
    lines = [("AGE", "ATTEMPTS", "DELIVERY", "LAST ERROR")]
    for row in sorted(rows, key=lambda row: row.get("firstSeenAt", 0)):
        age = timedelta(seconds=int(now - float(row.get("firstSeenAt", row["leaseUntil"])) / 1000))
        held = "(in hand)" if row["leaseUntil"] > now * 1000 else "(its last attempt died)"
        lines.append((str(age), str(row.get("attempts", 0)), row["deliveryId"], row.get("lastError", held)))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    # ASCII only: an id comes from outside, and must not steer the terminal.
    return "\n".join(
        ascii("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[3]]))[1:-1] for line in lines
    )


if __name__ == "__main__":
    main()
