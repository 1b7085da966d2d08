"""The command `doctor`: reports what is wrong with a stack, and how to fix it."""

import argparse
import time
from collections.abc import Iterable

from ops.display import printable
from ops.examination import CANT_TELL, OK, WRONG, Examination, Finding
from ops.running import exports, use_local_run
from ops.stack import NAME


def run(given: argparse.Namespace) -> int:
    """Examines the stack, and returns the exit status."""
    if given.stack:
        return examine(Examination(given.stack, time.time(), alert=given.alert).findings())
    webhook = use_local_run(given.run)
    local = Examination(NAME, time.time(), webhook, given.alert, is_local=True, port=given.run)
    return examine(local.findings(), exports())


def examine(findings: Iterable[Finding], exports: str = "") -> int:
    """Prints each finding at once, and returns the exit status.

    `exports` is a shell command that must run before the remedies' AWS CLI commands.
    """
    count, remedies = dict.fromkeys((OK, WRONG, CANT_TELL), 0), []
    for finding in findings:
        count[finding.verdict] += 1
        remedies += finding.remedy.splitlines()
        print(f"{finding.verdict:<12}{printable(finding.what)}")
        for line in finding.remedy.splitlines():
            print(f"{'':<12}{printable(line)}")
        print(end="", flush=True)
    if exports and any(line.startswith("  ") and "aws " in line for line in remedies):
        print(f"\nBefore the commands of the AWS CLI, run:\n  {exports}")
    print("\n" + ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number))
    return 1 if count[WRONG] else 2 if count[CANT_TELL] else 0
