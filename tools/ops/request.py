"""A request of SendPilot's, read from a file and posted as if SendPilot sent it now."""

import base64
import json
import re
import secrets
import string
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Optional, Union

from ops.running import ROOT
from ops.signature import SAMPLE_SECRET, SVIX, form_of, fresh_secret, is_by, sign

EVENT_ID = re.compile(rb'("eventId"\s*:\s*")((?:[^"\\]|\\.)*)(")')


@dataclass
class Request:
    """A request without its signature."""

    body: bytes
    headers: dict
    form: str  # of the signature
    genuine: bool  # whether a secret that the receiver knows is to sign it
    message_id: str

    def event(self) -> dict:
        """Returns the event, or an empty one if the body is not a JSON object."""
        return json_object(self.body) or {}

    def event_id(self) -> Optional[str]:
        """Returns the event's id, or None."""
        found = EVENT_ID.search(self.body)
        return found[2].decode() if found else None

    def with_event_id(self, event_id: str) -> "Request":
        """Returns another event, in another message. All other bytes stay, because not every body is JSON."""
        body = EVENT_ID.sub(lambda found: found[1] + event_id.encode() + found[3], self.body, count=1)
        return replace(self, body=body, message_id=fresh("msg"))

    def with_data(self, **members: Any) -> "Request":
        """Returns the event with these members of `data`. None takes a member out."""
        event = json.loads(self.body)
        event["data"] = {name: value for name, value in {**event["data"], **members}.items() if value is not None}
        return replace(self, body=json.dumps(event).encode())

    def post(self, url: str, secret: str = SAMPLE_SECRET) -> "Answer":
        """Signs the request with the present time, and sends it."""
        if not self.genuine:
            secret = fresh_secret()
        signature = sign(self.form, secret, self.message_id, int(time.time()), self.body)
        return exchange("POST", url, self.body, {**self.headers, **signature})


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict
    body: str

    def json(self) -> Optional[dict]:
        """Returns the body, or None if it is not a JSON object."""
        return json_object(self.body)

    def outcome(self) -> Optional[str]:
        """Returns the function's outcome of the request, or None if the gateway answered without the function."""
        return (self.json() or {}).get("outcome")


def json_object(text: Union[str, bytes]) -> Optional[dict]:
    """Returns the JSON object in a text, or None if there is none. Python refuses JSON that is nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def sample(name: str) -> Request:
    """Returns the request in `events/<name>.json`. `ops.pyz` has a copy of each that its commands send."""
    packed = resources.files("ops") / "events" / f"{name}.json"
    return parsed((packed if packed.is_file() else ROOT / "events" / f"{name}.json").read_bytes())


def read(path: Union[str, Path]) -> Request:
    """Returns the request in a file."""
    return parsed(Path(path).read_bytes())


def parsed(content: bytes) -> Request:
    """Returns the request in a file's content: as API Gateway invokes the function (see `events/`), or a bare payload.

    The request is signed in the form of the file's own headers, a bare payload in the form of Svix. If the sample
    secret made the file's signature, a secret that the receiver knows makes the new one; if not, an unknown secret.
    """
    try:
        event = json.loads(content)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "requestContext" not in event:
        return Request(content, {"content-type": "application/json"}, SVIX, True, fresh("msg"))
    body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    headers = {name.lower(): value for name, value in event["headers"].items()}
    form = form_of(headers)
    return Request(
        body=body,
        headers={name: headers[name] for name in ("content-type", "user-agent") if name in headers},
        form=form,
        genuine=is_by(SAMPLE_SECRET, form, headers, body),
        message_id=headers.get(f"{form}-id", ""),
    )


def exchange(method: str, url: str, body: Optional[bytes] = None, headers: Optional[dict] = None) -> Answer:
    """Sends an HTTP request. Returns the answer, whatever its status."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, dict(response.headers), response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read().decode())


def fresh(prefix: str) -> str:
    """Returns a new id in the form of SendPilot's."""
    tail = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(9))
    return f"{prefix}_{time.time_ns() // 1_000_000}_{tail}"
