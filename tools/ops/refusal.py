"""The meaning of AWS's refusal of a call."""

import re
from typing import Optional

from botocore.exceptions import ClientError

DENIED = re.compile(r"AccessDenied|Authorization|Unauthorized|NotAuthorized|Forbidden")
NOT_LOGGED_IN = re.compile(
    r"Expired|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|IncompleteSignature"
)
GONE = re.compile(r"NotFound|NonExistentQueue|QueueDoesNotExist")

LOG_IN = (
    "Log your shell in to the account and the region of the stack; `aws sts get-caller-identity` shows the account."
)


def missing_permission(error: ClientError) -> Optional[str]:
    """Returns the action that the caller may not use, or None if AWS refused for another reason."""
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    if code == "KMSAccessDenied":  # SNS's code; its message quotes KMS
        named = re.search(r"kms:\w+", message)
        return named[0] if named else "kms:Decrypt and kms:GenerateDataKey"
    if not DENIED.search(code):
        return None
    named = re.search(r"perform: (\w+:\w+)", message)
    return named[1] if named else "kms:Decrypt" if "KMS" in message else error.operation_name
