"""Asks SendPilot's REST API whether an API key works."""

import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from ops import request

DEFAULT_URL = "https://api.sendpilot.ai"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIMEOUT = 5  # seconds
LARGEST_ANSWER = 256 * 1024  # bytes
# The function reads a lead and the campaigns. SendPilot does not document the scope of campaigns.
NEEDED_SCOPES = ("leads:read", "workspace:read")
NEEDED = re.compile("(leads|workspace|campaigns):read")
REFUSED, LACKS_SCOPES, WORKS, UNCLEAR = "refused", "lacks scopes", "works", "unclear"


@dataclass
class Verdict:
    """SendPilot's answer about a key. `what` is the answer in words."""

    kind: str
    what: str
    scopes: tuple = ()  # the missing ones


def fault_of_url(url: str) -> Optional[str]:
    """Returns why the function does not ask this API, or None if it does.

    Without TLS, anyone on the way could read the key. So plain http is only for this machine.
    """
    if fault := request.fault_of_url(url):
        return fault
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return "begins with http://, so the key would travel unencrypted"
    if parts.query or parts.fragment:
        return "has a query or a fragment"
    return None


def verdict(url: str, key: str) -> Verdict:
    """Asks the API about the key, without following a redirect, which would pass the key on.

    Raises NoAnswer if the API does not answer.
    """
    # Some hosts refuse the name of Python's own client.
    headers = {"X-API-Key": key, "Accept": "application/json", "User-Agent": "sendpilot-opportunity-alerts"}
    answer = request.exchange(
        "GET", f"{url.rstrip('/')}/v1/me", headers=headers, timeout=TIMEOUT, largest=LARGEST_ANSWER
    )
    body = answer.json()
    if answer.status == 401:
        return Verdict(REFUSED, "SendPilot refuses the key with 401")
    if body is None or answer.status not in (200, 403):
        what = "" if body is not None else ", without a JSON object"
        return Verdict(UNCLEAR, f"SendPilot's API answers {answer.status}{what}")
    missing = missing_scopes(body)
    if answer.status == 403:
        return Verdict(LACKS_SCOPES, "SendPilot refuses the key with 403", missing or NEEDED_SCOPES)
    if missing:
        return Verdict(LACKS_SCOPES, f"the key lacks {', '.join(missing)}", missing)
    return Verdict(WORKS, "SendPilot accepts the key")


def missing_scopes(body: dict) -> tuple:
    """Returns the scopes to add, from the answer of `/v1/me`. The function needs no other scope."""
    listed = body.get("missingScopes")
    if not isinstance(listed, list):
        return ()
    return tuple(one for one in listed[:100] if isinstance(one, str) and NEEDED.fullmatch(one))
