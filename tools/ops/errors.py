"""The errors that end a command, and what to do about them.

`send` must work without boto3, so this module does not import it.
"""

import traceback
from pathlib import Path


class Refused(Exception):
    """The reason why a command did not do its work, and what to do."""


def what_to_do(error: Exception) -> str:
    """Returns what to do about an unexpected error.

    Unusable AWS settings cause errors of many types in botocore.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if any("botocore" in Path(frame.filename).parts for frame in frames):
        return "Check the AWS settings of your shell: the variables that begin with AWS_, and the files in ~/.aws."
    if isinstance(error, OSError):  # such as a full disk, whose own text says enough
        return ""
    return f"This is a bug in this program, in {Path(frames[-1].filename).name}, line {frames[-1].lineno}."
