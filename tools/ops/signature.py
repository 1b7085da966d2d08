"""Signs requests in each of the three forms that SendPilot may use."""

import base64
import hashlib
import hmac
import secrets

# The public secret of the Standard Webhooks test vectors. It signs all files in `events/`.
SAMPLE_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

SVIX = "svix"  # svix-id, svix-timestamp, svix-signature
STANDARD = "webhook"  # the same three as webhook-*
DOCUMENTED = "documented"  # SendPilot's own documentation: webhook-signature alone
UNSIGNED = "unsigned"


def sign(form: str, secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns the headers of a signature."""
    if form == UNSIGNED:
        return {}
    if form == DOCUMENTED:
        digest = hmac.new(secret.encode(), b"%d.%s" % (timestamp, body), hashlib.sha256).hexdigest()
        return {"webhook-signature": f"v1,t={timestamp},s={digest}"}
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = base64.b64encode(hmac.new(key(secret), content, hashlib.sha256).digest()).decode()
    return {f"{form}-id": message_id, f"{form}-timestamp": str(timestamp), f"{form}-signature": f"v1,{digest}"}


def fresh_secret() -> str:
    """Returns a new secret in SendPilot's form."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


def form_of(headers: dict[str, str]) -> str:
    """Returns the form of the signature in a request's headers."""
    if "svix-signature" in headers:
        return SVIX
    if "webhook-signature" not in headers:
        return UNSIGNED
    # STANDARD and DOCUMENTED use the same header, with different grammars.
    return DOCUMENTED if "t=" in headers["webhook-signature"] else STANDARD


def key(secret: str) -> bytes:
    """Returns the key that Svix and Standard Webhooks make of a secret.

    The key is the decoded part after the prefix or, without the prefix, the whole secret.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("the part of the secret after whsec_ is not base64") from None
