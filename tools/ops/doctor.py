"""The command `doctor`: says what is wrong with a stack, and how to fix it."""

import argparse
import sys
import time

from ops.display import printable
from ops.examination import CANT_TELL, OK, WRONG, Examination
from ops.running import use_what_runs
from ops.stack import NAME


def run(given: argparse.Namespace) -> int:
    """Examines the stack, and returns the exit status."""
    webhook = None if given.stack else use_what_runs()
    return examine(Examination(given.stack or NAME, time.time(), webhook, given.alert))


def examine(examination: Examination) -> int:
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
