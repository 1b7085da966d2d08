"""The errors that end a command, and what a person can do about them. It needs no boto3."""

import traceback
from pathlib import Path


class Refused(Exception):
    """The reason why a command did not do its work, and what to do."""


def what_to_do(error: Exception) -> str:
    """Says what to do about an error that nobody expected.

    Settings of AWS that cannot be used cause errors of all kinds in botocore, which reads them.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if any("botocore" in Path(frame.filename).parts for frame in frames):
        return "Check the AWS settings of your shell: the variables that begin with AWS_, and the files in ~/.aws."
    if isinstance(error, OSError):  # such as a full disk, whose own text says it all
        return ""
    return f"This is a defect of this program, in {Path(frames[-1].filename).name}, line {frames[-1].lineno}."
