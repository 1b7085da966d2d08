"""Reads SendPilot's requests from files, and posts them as if SendPilot sent them now."""

import base64
import binascii
import http.client
import json
import re
import secrets
import string
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, Optional, Union
from urllib.parse import urlsplit

from ops.errors import Refused
from ops.running import ROOT
from ops.signature import SAMPLE_SECRET, SVIX, UNSIGNED, form_of, fresh_secret, sign

# These samples test a wrong signature. `send` signs every other file with a secret that the
# receiver knows.
FORGED, NOT_SIGNED = "forged", "unsigned"
LARGEST_FILE = 16 * 1024 * 1024  # bytes; the function accepts a body of 256 KiB
LARGEST_ANSWER = 1024 * 1024  # bytes; the function answers with some hundreds
TIMEOUT = 30  # seconds


class NoAnswer(OSError):
    """The reason why an HTTP request has no answer."""


@dataclass
class Request:
    """A request without its signature."""

    body: bytes
    headers: dict
    form: str  # of the signature
    genuine: bool  # whether `post` signs it with a secret that the receiver knows
    message_id: str

    def is_utf8(self) -> bool:
        """Returns whether the body is UTF-8."""
        try:
            self.body.decode()
        except UnicodeDecodeError:
            return False
        return True

    def event(self) -> dict:
        """Returns the event, or an empty dict if the body is not a JSON object in UTF-8."""
        try:
            return json_object(self.body.decode("utf-8-sig")) or {}
        except UnicodeDecodeError:
            return {}

    def event_id(self) -> Optional[str]:
        """Returns the event's id, or None."""
        found = self.event().get("eventId")
        return found if isinstance(found, str) else None

    def with_event_id(self, event_id: str) -> "Request":
        """Returns the event with this id, in a new message. An event without an id gets no id."""
        changed = self if self.event_id() is None else self.with_text("eventId", event_id)
        return replace(changed, message_id=fresh("msg"))

    def with_text(self, name: str, value: str) -> "Request":
        """Returns the event with this text as the member `name`, which may be `data.NAME`.

        All other bytes stay, because some samples test an unusual notation. Raises Refused if the
        body has no place for the member.
        """
        if not self.event():
            raise Refused(f"The body of this event is not a JSON object, so {name} cannot be set.")
        text = self.body.decode()
        start = text.index("{")
        *outer, inner = name.split(".")
        for member in outer:
            found = [at for one, at, _ in members(text, start) if one == member]
            if not found or text[found[-1]] != "{":
                raise Refused(f"This event has no object `{member}`, so {name} cannot be set.")
            start = found[-1]
        # JSON may have a name twice, and the receiver may read either value.
        places = [(at, end) for one, at, end in members(text, start) if one == inner]
        for at, end in reversed(places):
            text = text[:at] + json.dumps(value) + text[end:]
        if not places:
            comma = "," if next(members(text, start), None) else ""
            text = f"{text[: start + 1]}{json.dumps(inner)}:{json.dumps(value)}{comma}{text[start + 1 :]}"
        return replace(self, body=text.encode())

    def with_data(self, **members: Any) -> "Request":
        """Returns the event with these members of `data`. None removes a member."""
        event = json.loads(self.body)
        event["data"] = {name: value for name, value in {**event["data"], **members}.items() if value is not None}
        return replace(self, body=json.dumps(event).encode())

    def at(self, moment: datetime) -> "Request":
        """Returns the event with this time. An event without a time gets no time."""
        if not isinstance(self.event().get("timestamp"), str):
            return self
        return self.with_text("timestamp", timestamp(moment))

    def renewed(self, prefix: str = "evt") -> "Request":
        """Returns an event with the same content, a new id and the present time."""
        return self.with_event_id(fresh(prefix)).at(datetime.now(timezone.utc))

    def post(self, url: str, secret: str = SAMPLE_SECRET) -> "Answer":
        """Signs the request with the present time, and sends the request."""
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
        """Returns the function's outcome, or None if API Gateway answered without the function."""
        return (self.json() or {}).get("outcome")


def json_object(text: Union[str, bytes]) -> Optional[dict]:
    """Returns the JSON object in a text, or None for any other or too deeply nested text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yields each member of the JSON object at `start`: name, and start and end of its value.

    The text must be valid JSON.
    """
    decoder, space = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")
    at = space.match(text, start + 1).end()
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = space.match(text, text.index(":", at) + 1).end()
        _, end = decoder.raw_decode(text, at)
        yield name, at, end
        at = space.match(text, end).end()
        if text[at] == ",":
            at = space.match(text, at + 1).end()


def sample_names() -> list[str]:
    """Returns the names of the samples."""
    names = (file.name for file in _samples().iterdir())
    return sorted(name[: -len(".json")] for name in names if name.endswith(".json"))


def sample(name: str) -> Request:
    """Returns the request in `events/<name>.json`. `ops.pyz` has a copy of that folder."""
    return parsed((_samples() / f"{name}.json").read_bytes(), name)


def _samples():
    packed = resources.files("ops") / "events"
    return packed if packed.is_dir() else ROOT / "events"


def read(path: Union[str, Path]) -> Request:
    """Returns the request in a file. Raises Refused if the file does not hold a request."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(content) > LARGEST_FILE:
        raise Refused(f"{path} is larger than {LARGEST_FILE >> 20} MiB, so it is not an event.")
    try:
        return parsed(content, Path(path).stem)
    except Refused as reason:
        raise Refused(f"{path} {reason}") from None


def parsed(content: bytes, name: str) -> Request:
    """Returns the request in the content of a file. `name` is the file's name without its ending.

    A JSON object with a `requestContext` is a whole request, as API Gateway passes it to the
    function (see `events/`). Its own headers determine the form of the signature. Any other content
    is a bare payload, which gets Svix headers. Raises Refused if a whole request lacks a part.
    """
    if not content:
        raise Refused("is empty, so there is nothing to send.")
    event = json_object(content)
    if event is None and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"requestContext"' in content:
        raise Refused(
            "has a requestContext, as a whole request has, but is not JSON. A sample in events/ shows the form."
        )
    if event is None or "requestContext" not in event:
        return _signed_as(name, Request(content, {"content-type": "application/json"}, SVIX, True, fresh("msg")))
    body, headers = _body(event), _headers(event)
    form = form_of(headers)
    kept = {name: headers[name] for name in ("content-type", "user-agent") if name in headers}
    # A file without a signature does not determine a form.
    form = SVIX if form == UNSIGNED else form
    return _signed_as(name, Request(body, kept, form, True, headers.get(f"{form}-id") or fresh("msg")))


def _signed_as(name, request):
    """Returns the request with the kind of signature that the sample's name requires."""
    if name == NOT_SIGNED:
        return replace(request, form=UNSIGNED)
    return replace(request, genuine=name != FORGED)


def _body(event):
    body, encoded = event.get("body"), event.get("isBase64Encoded", False)
    if not isinstance(body, str):
        raise Refused("is a whole request whose `body` is missing, or is not a text.")
    if not isinstance(encoded, bool):
        raise Refused("is a whole request whose `isBase64Encoded` is neither true nor false.")
    try:
        return base64.b64decode(body, validate=True) if encoded else body.encode()
    except binascii.Error:
        raise Refused("is a whole request that says isBase64Encoded, but whose `body` is not base64.") from None
    except UnicodeEncodeError:
        raise Refused("is a whole request whose `body` has half of a surrogate pair.") from None


def _headers(event):
    headers = event.get("headers")
    if not isinstance(headers, dict):
        raise Refused("is a whole request whose `headers` are missing, or are not an object.")
    for name, value in headers.items():
        if not isinstance(value, str) or not re.fullmatch("[ -~]*", value):
            raise Refused(f"is a whole request whose header {name} is not a text of printable ASCII.")
    return {name.lower(): value for name, value in headers.items()}


def fault_of_url(url: str) -> Optional[str]:
    """Returns why nothing can be sent to a URL, or None if it can."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if not re.fullmatch("[!-~]+", url):
        return "has a space or another character that a URL does not have; write it percent-encoded"
    if parts.scheme not in ("http", "https"):
        return "does not begin with https:// or http://"
    try:
        named = bool(host and host.encode("idna"))
    except UnicodeError:
        named = False
    if not named:
        return "has no valid host name"
    if "@" in parts.netloc:
        return "has a user name, which the function does not accept"
    return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirect as the answer.

    urllib would follow the redirect by a GET without the event.
    """

    def redirect_request(self, *_):
        return None


def exchange(
    method: str,
    url: str,
    body: Optional[bytes] = None,
    headers: Optional[dict] = None,
    timeout: float = TIMEOUT,
    largest: int = LARGEST_ANSWER,
) -> Answer:
    """Sends an HTTP request, and returns the answer, even if its status is an error or a redirect.

    `timeout` is in seconds, for each wait. Of the body, at most `largest` bytes are read. Raises
    NoAnswer if the server does not answer.
    """
    try:
        request = urllib.request.Request(url, body, headers or {}, method=method)
        try:
            response = urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = response.read(largest).decode(errors="replace")
            return Answer(response.status, dict(response.headers), content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(str(reason) or type(reason).__name__) from None


def fresh(prefix: str) -> str:
    """Returns a new id in SendPilot's form."""
    tail = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(9))
    return f"{prefix}_{time.time_ns() // 1_000_000}_{tail}"


def timestamp(moment: datetime) -> str:
    """Returns a moment in SendPilot's form."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
