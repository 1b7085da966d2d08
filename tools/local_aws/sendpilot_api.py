"""A stand-in for SendPilot's REST API, with control over its data, its faults and its delays.

`python3 -B tools/local_aws/sendpilot_api.py` prints the URL in its first line. The program ends
when its standard input closes or its parent ends. The local run imports `SendPilotApi` instead.
This module needs only the standard library.

The paths below `/v1` are SendPilot's. A client may put `/api` before them, as SendPilot's older
documentation does. SendPilot does not document the scope of each call, so the scope of campaigns is
an assumption.

The paths below `/stand-in` control the stand-in:

| request | effect |
|---|---|
| `PUT /stand-in/leads` | adds or replaces a lead: an object with `id`, or an array of objects |
| `PUT /stand-in/campaigns` | the same for campaigns |
| `PUT /stand-in/settings` | changes settings: see `SETTINGS` |
| `PUT /stand-in/answers` | changes the answers to all paths with a prefix: see `Planned` |
| `DELETE /stand-in/answers` | removes these changes, and answers waiting requests as usual |
| `GET /stand-in/requests` | lists the requests to the API so far |
| `DELETE /stand-in/requests` | empties the list |
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qsl, unquote, urlsplit

KEY = "sp_live_sample"
SCOPES = ("leads:read", "senders:read", "workspace:read")
STATUSES = (
    "PENDING",
    "CONNECTION_SENT",
    "CONNECTION_ACCEPTED",
    "MESSAGE_SENT",
    "REPLY_RECEIVED",
    "OPPORTUNITY",
    "MEETING_BOOKED",
    "NOT_INTERESTED",
    "DONE",
)
# The settings, each with its meaning. They are attributes of `SendPilotApi`.
SETTINGS = {
    "key": "the API key that requests need",
    "scopes": "the scopes of the key",
    "statuses": "the values that the list of leads accepts as `status`; it refuses other values with 400",
    "filters": "whether the list of leads applies the filter `status`; if false, it ignores the filter",
    "order": "the order of lists: `added`, or by `updatedAt`: `newest` or `oldest` first",
    "delay": "ms before every answer",
}
LARGEST_PAGE = 100
CHUNK = 64 * 1024
CONTROL = "/stand-in/"


@dataclass
class Planned:
    """Differences from the usual answer to all paths that begin with `prefix`.

    The newest plan that fits a path counts. A plan replaces an older one with the same prefix.
    """

    prefix: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None  # a string as it is, any other value as JSON
    delay: int = 0  # ms before the answer
    hang: bool = False  # no answer until the plan is removed
    close: bool = False  # the connection breaks before the answer
    half: bool = False  # the connection breaks after half of the body
    huge: int = 0  # bytes; blanks after the body fill them
    chunked: bool = False  # without Content-Length


@dataclass
class Request:
    """A request to the API, as it arrived."""

    method: str
    path: str  # with the query
    headers: dict[str, str]  # the names in lower case
    time: float  # seconds since the Unix epoch


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str | list[str]):
        super().__init__(message)
        self.status = status
        self.body = {"statusCode": status, "message": message, "error": HTTPStatus(status).phrase}


class SendPilotApi:
    """A context with the stand-in at `url`."""

    def __init__(self):
        self.key = KEY
        self.scopes = list(SCOPES)
        self.statuses = list(STATUSES)
        self.filters = True
        self.order = "added"
        self.delay = 0
        self.leads: dict[str, dict] = {}
        self.campaigns: dict[str, dict] = {}
        self._plans: list[Planned] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.clear()
        self._server.shutdown()
        self._server.server_close()

    def put_lead(self, lead: dict) -> None:
        """Adds a lead, or replaces the lead with the same id."""
        self.leads[lead["id"]] = lead

    def put_campaign(self, campaign: dict) -> None:
        """Adds a campaign, or replaces the campaign with the same id."""
        self.campaigns[campaign["id"]] = campaign

    def set(self, **settings) -> None:
        """Changes settings: see `SETTINGS`."""
        if unknown := settings.keys() - SETTINGS.keys():
            raise ValueError(f"unknown settings: {unknown}")
        self.__dict__.update(settings)

    def answer(self, prefix: str, **changes) -> None:
        """Changes the answers to all paths with this prefix, until `clear`."""
        plan = Planned(prefix, **changes)
        with self._lock:
            self._plans = [plan, *(one for one in self._plans if one.prefix != prefix)]

    def clear(self) -> None:
        """Removes all changed answers. Waiting requests then get their usual answers."""
        with self._lock:
            self._plans = []

    def requests(self) -> list[Request]:
        """Returns the requests to the API so far."""
        with self._lock:
            return list(self._requests)

    def forget_requests(self) -> None:
        """Empties the list of requests."""
        with self._lock:
            self._requests.clear()

    def record(self, request: Request) -> Planned:
        """Adds a request to the list, and returns the plan for its answer."""
        with self._lock:
            self._requests.append(request)
            path = request.path.removeprefix("/api")
            return next((plan for plan in self._plans if path.startswith(plan.prefix)), Planned(""))

    def holds(self, plan: Planned) -> bool:
        """Returns whether a plan still exists."""
        with self._lock:
            return plan in self._plans

    def usual(self, request: Request) -> tuple[int, object]:
        """Returns the status and the body of SendPilot's own answer to a request."""
        try:
            return 200, self._serve(request)
        except Refused as refused:
            return refused.status, refused.body

    def _serve(self, request):
        if request.headers.get("x-api-key") != self.key:
            raise Refused(401, "Invalid or missing API key")
        url = urlsplit(request.path.removeprefix("/api"))
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        match (request.method, *(unquote(part) for part in url.path.split("/")[1:])):
            case ("GET", "v1", "me"):
                return {
                    "workspaceId": "ws_abc123xyz",
                    "scopes": self.scopes,
                    "missingScopes": [scope for scope in SCOPES if scope not in self.scopes],
                }
            case ("GET", "v1", "leads"):
                self._require("leads:read")
                return self._leads(query)
            case ("GET", "v1", "leads", id):
                self._require("leads:read")
                return _found(self.leads, id, "Lead")
            case ("GET", "v1", "campaigns"):
                self._require("workspace:read")
                return self._page("campaigns", list(self.campaigns.values()), query)
            case ("GET", "v1", "campaigns", id):
                self._require("workspace:read")
                return _found(self.campaigns, id, "Campaign")
        raise Refused(404, f"Cannot {request.method} {url.path}")

    def _require(self, scope):
        if scope not in self.scopes:
            raise Refused(403, f"Missing required scope: {scope}")

    def _leads(self, query):
        if not query.get("campaignId"):
            raise Refused(400, ["campaignId should not be empty"])
        status = query.get("status")
        if status is not None and status not in self.statuses:
            raise Refused(400, [f"status must be one of the following values: {', '.join(self.statuses)}"])
        wanted = status if self.filters else None
        leads = [
            lead
            for lead in list(self.leads.values())
            if lead.get("campaignId") == query["campaignId"] and wanted in (None, lead.get("status"))
        ]
        return self._page("leads", leads, query)

    def _page(self, name, items, query):
        if self.order != "added":
            items.sort(key=lambda item: item.get("updatedAt", ""), reverse=self.order == "newest")
        page, limit = _number(query, "page", 1, None), _number(query, "limit", 20, LARGEST_PAGE)
        pages = -(-len(items) // limit)
        pagination = {"total": len(items), "page": page, "limit": limit, "totalPages": pages}
        return {name: items[(page - 1) * limit : page * limit], "pagination": pagination}


def _found(known, id, kind):
    if id not in known:
        raise Refused(404, f"{kind} not found")
    return known[id]


def _number(query, name, default, most):
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise Refused(400, [f"{name} must not be less than 1"])
    if most and int(text) > most:
        raise Refused(400, [f"{name} must not be greater than {most}"])
    return int(text)


class _Server(ThreadingTCPServer):
    """A server without HTTPServer's look-up of the host's name, which can take seconds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # connections that wait
    api: SendPilotApi

    def handle_error(self, *_):
        """Ignores an error, because clients break connections whenever a test ends them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without this, the kernel may hold an answer back for 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_):
        """Logs nothing. Otherwise, every request would be printed."""

    def _answer(self):
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith(CONTROL):
            self._control(content)
            return
        api = self.server.api
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, time.time())
        plan = api.record(request)
        time.sleep((plan.delay or api.delay) / 1000)
        while plan.hang and api.holds(plan):
            if self._client_left():
                self.close_connection = True
                return
        if plan.close:
            self.close_connection = True
            return
        status, body = api.usual(request)
        self._send(plan.status or status, body if plan.body is None else plan.body, plan)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer

    def _client_left(self):
        """Waits for a moment, and returns whether the client closed the connection meanwhile."""
        readable, _, _ = select.select([self.connection], [], [], 0.05)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _control(self, content):
        try:
            done = self._controlled(json.loads(content or "null"))
        except Exception as fault:  # the fault of a test, which must see the reason
            self._send(400, {"statusCode": 400, "message": repr(fault), "error": "Bad Request"})
            return
        self._send(200, done)

    def _controlled(self, value):
        api = self.server.api
        match (self.command, self.path.removeprefix(CONTROL)):
            case ("PUT", "leads"):
                for lead in value if isinstance(value, list) else [value]:
                    api.put_lead(lead)
                return None
            case ("PUT", "campaigns"):
                for campaign in value if isinstance(value, list) else [value]:
                    api.put_campaign(campaign)
                return None
            case ("PUT", "settings"):
                return api.set(**value)
            case ("PUT", "answers"):
                return api.answer(**value)
            case ("DELETE", "answers"):
                return api.clear()
            case ("GET", "requests"):
                return [asdict(request) for request in api.requests()]
            case ("DELETE", "requests"):
                return api.forget_requests()
        raise LookupError(f"{self.command} {self.path} does not exist")

    def _send(self, status, body, plan=None):
        plan = plan or Planned("")
        text = body if isinstance(body, str) else json.dumps(body)
        content = text.encode().ljust(plan.huge)
        phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers |= {"Transfer-Encoding": "chunked"} if plan.chunked else {"Content-Length": str(len(content))}
        headers |= plan.headers
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        head = "\r\n".join(lines).encode()
        if self.command == "HEAD":
            content = b""
        if plan.half:
            self.close_connection = True
            content = content[: len(content) // 2]
        # Each answer is one write. With two writes, a client can see the parts at different times.
        self.wfile.write(head + (b"".join(_chunks(content, plan.half)) if plan.chunked else content))


def _chunks(content, half):
    for start in range(0, len(content), CHUNK):
        chunk = content[start : start + CHUNK]
        yield f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
    if not half:
        yield b"0\r\n\r\n"


def main():
    parent = os.getppid()
    with SendPilotApi() as api:
        print(api.url, flush=True)
        while os.getppid() == parent:
            # Nothing needs to be written there, so whatever arrives is dropped.
            if select.select([sys.stdin], [], [], 0.2)[0] and not os.read(sys.stdin.fileno(), 4096):
                break


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
