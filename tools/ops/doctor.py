"""`make doctor`: tells what is wrong with a deployed stack, and how to mend it.

Exits with 1 if something is wrong, with 2 if nothing is but something could not be told.
"""

import argparse
import sys
import time

from ops.display import printable
from ops.examination import CANT_TELL, OK, WRONG, Examination
from ops.running import use_what_runs
from ops.stack import NAME


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", help="a deployed stack; without it, what `make run` runs")
    parser.add_argument(
        "--alert", action="store_true", help="send an opportunity too, whose alert reaches all subscribers"
    )
    arguments = parser.parse_args()
    webhook = None if arguments.stack else use_what_runs()
    sys.exit(examine(Examination(arguments.stack or NAME, time.time(), webhook, arguments.alert)))


def examine(examination):
    """Prints each finding as soon as it is made, and returns the exit status."""
    count = dict.fromkeys((OK, WRONG, CANT_TELL), 0)
    for finding in examination.findings():
        count[finding.verdict] += 1
        print(f"{finding.verdict:<12}{printable(finding.what)}")
        for line in finding.remedy.splitlines():
            print(f"{'':<12}{printable(line)}")
        sys.stdout.flush()
    print("\n" + ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number))
    return 1 if count[WRONG] else 2 if count[CANT_TELL] else 0


if __name__ == "__main__":
    main()
