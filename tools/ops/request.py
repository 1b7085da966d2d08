"""A request of SendPilot's, read from a file and posted as if it were sent at this moment."""

import base64
import json
import re
import secrets
import string
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from ops.signature import SAMPLE_SECRET, SVIX, form_of, fresh_secret, is_by, sign

EVENT_ID = re.compile(rb'("eventId"\s*:\s*")((?:[^"\\]|\\.)*)(")')


@dataclass
class Request:
    """What is to be sent, but for its signature."""

    body: bytes
    headers: dict
    form: str  # of the signature
    genuine: bool  # whether a secret that the receiver knows shall sign it
    message_id: str

    def event_id(self):
        """The event's id, or None."""
        found = EVENT_ID.search(self.body)
        return found[2].decode() if found else None

    def with_event_id(self, event_id):
        """Another event, in another message. All other bytes stay as they are: not every body is JSON."""
        body = EVENT_ID.sub(lambda found: found[1] + event_id.encode() + found[3], self.body, count=1)
        return replace(self, body=body, message_id=fresh("msg"))

    def with_data(self, **members):
        """With these members of `data`, where the body is an event. None takes one out."""
        event = json.loads(self.body)
        event["data"] = {name: value for name, value in {**event["data"], **members}.items() if value is not None}
        return replace(self, body=json.dumps(event).encode())

    def post(self, url, secret=SAMPLE_SECRET):
        """Signs it now, and sends it."""
        if not self.genuine:
            secret = fresh_secret()
        signature = sign(self.form, secret, self.message_id, int(time.time()), self.body)
        return exchange("POST", url, self.body, {**self.headers, **signature})


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict
    body: str

    def json(self):
        """The body, read; None where it is no JSON object."""
        try:
            body = json.loads(self.body)
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def outcome(self):
        """What the function says became of the request; None where the gateway answered without it."""
        return (self.json() or {}).get("outcome")


def read(path):
    """The request in a file: as API Gateway hands it to the function (see `events/`), or a bare payload.

    It will be signed in the form of the file's own headers, a bare payload in Svix's. What is genuine stays genuine, and
    what is not does not: if the sample secret did not make the file's signature, a stranger's will make the new one.
    """
    content = Path(path).read_bytes()
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


def exchange(method, url, body=None, headers=None):
    """One HTTP request, whatever it is, and its answer, whatever it says."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, dict(response.headers), response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read().decode())


def fresh(prefix):
    """An id as SendPilot makes them, never used before."""
    tail = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(9))
    return f"{prefix}_{time.time_ns() // 1_000_000}_{tail}"
