"""The signature as SendPilot makes it, in each of the three forms that are seen."""

import base64
import hashlib
import hmac
import re
import secrets

# The public one of the Standard Webhooks test vectors; all files in `events/` are signed with it.
SAMPLE_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

SVIX = "svix"  # svix-id, svix-timestamp, svix-signature
STANDARD = "webhook"  # the same three as webhook-*
DOCUMENTED = "documented"  # SendPilot's own documentation: webhook-signature alone
UNSIGNED = "unsigned"


def sign(form, secret, message_id, timestamp, body):
    """The signature's headers."""
    if form == UNSIGNED:
        return {}
    if form == DOCUMENTED:
        digest = hmac.new(secret.encode(), b"%d.%s" % (timestamp, body), hashlib.sha256).hexdigest()
        return {"webhook-signature": f"v1,t={timestamp},s={digest}"}
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = base64.b64encode(hmac.new(key(secret), content, hashlib.sha256).digest()).decode()
    return {f"{form}-id": message_id, f"{form}-timestamp": str(timestamp), f"{form}-signature": f"v1,{digest}"}


def fresh_secret():
    """A secret as SendPilot makes them, that nobody else has."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


def form_of(headers):
    """Which form a request's headers have."""
    if "svix-signature" in headers:
        return SVIX
    if "webhook-signature" not in headers:
        return UNSIGNED
    # One name, two grammars.
    return DOCUMENTED if "t=" in headers["webhook-signature"] else STANDARD


def is_by(secret, form, headers, body):
    """Whether the signature in these headers was made with this secret, whenever that was."""
    if form == DOCUMENTED:
        timestamp = re.search(r"t=(\d+)", headers["webhook-signature"])[1]
    else:
        timestamp = headers.get(f"{form}-timestamp", "0")
    made = sign(form, secret, headers.get(f"{form}-id", ""), int(timestamp), body)
    return all(headers.get(name) == value for name, value in made.items())


def key(secret):
    """What a secret is to Svix and Standard Webhooks: the bytes behind its prefix, or all of it."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("what follows whsec_ in the secret is not base64") from None
