"""Explains failed calls to AWS, and what to do about them."""

import re
from typing import Optional

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectionError,
    HTTPClientError,
    InvalidRegionError,
    NoRegionError,
    ProfileNotFound,
)

from ops.running import MAY_HAVE_ENDED

DENIED = re.compile(r"AccessDenied|Authorization|Unauthorized|NotAuthorized|Forbidden")
NOT_LOGGED_IN = re.compile(
    r"Expired|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|IncompleteSignature"
)
GONE = re.compile(r"NotFound|NonExistentQueue|QueueDoesNotExist")

LOG_IN = (
    "Log your shell in to the account and the region of the stack. `aws sts get-caller-identity` shows the account."
)
DEPLOY_OR_LOG_IN = f"Deploy the stack, or correct its name. {LOG_IN}"
HINTS = (
    (NoRegionError, "Set the region: export AWS_DEFAULT_REGION=<the region of the stack>."),
    (InvalidRegionError, "Set AWS_DEFAULT_REGION to the region of the stack."),
    (ProfileNotFound, "Set AWS_PROFILE to a profile that `aws configure list-profiles` lists."),
    (ConfigParseError, "Fix the file, or set AWS_CONFIG_FILE to another one."),
    (ConnectionError, "Check the network, and check that your shell uses the stack's region."),
    (HTTPClientError, "Check the network, and check that your shell uses the stack's region."),
)


def explained(error: Exception, local: bool) -> str:
    """Returns one line: why a call failed, and what to do. `local` means a call to a local AWS."""
    what = str(error)
    if isinstance(error, ClientError):
        what = f"{error.operation_name}: {error.response['Error']['Code']}: {error.response['Error']['Message']}"
    return " ".join(f"{what.rstrip('. ')}. {advice(error, local)}".split())


def advice(error: Exception, local: bool) -> str:
    """Returns what to do about a failed call, or an empty text if nothing is known."""
    if isinstance(error, ClientError):
        if action := missing_permission(error):
            return f"Grant {action} to the identity that your shell is logged in as."
        if not NOT_LOGGED_IN.search(error.response["Error"]["Code"]):
            return ""
        return MAY_HAVE_ENDED if local else LOG_IN
    if local:
        return MAY_HAVE_ENDED
    # Any other BotoCoreError happens before a request, for example without credentials.
    default = LOG_IN if isinstance(error, BotoCoreError) else ""
    return next((hint for kind, hint in HINTS if isinstance(error, kind)), default)


def missing_permission(error: ClientError) -> Optional[str]:
    """Returns the action that the caller lacks, or None if AWS refused for another reason."""
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    if code == "KMSAccessDenied":  # SNS's code; its message quotes KMS
        named = re.search(r"kms:\w+", message)
        return named[0] if named else "kms:Decrypt and kms:GenerateDataKey"
    if not DENIED.search(code):
        return None
    named = re.search(r"perform: (\w+:\w+)", message)
    return named[1] if named else "kms:Decrypt" if "KMS" in message else error.operation_name
