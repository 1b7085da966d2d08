"""Formats requests and answers for a terminal."""

import json
from typing import Any

from ops.request import Answer, Request
from ops.signature import DOCUMENTED, STANDARD, SVIX

FORMS = {SVIX: "Svix headers", STANDARD: "Standard Webhooks headers", DOCUMENTED: "the documented header"}


def request_line(request: Request, name: str, with_id: bool = True) -> str:
    """Returns one line about a request. `name` is the name of the sample or of the file."""
    words = [printable(name)]
    event = request.event()
    data = event.get("data") if isinstance(event.get("data"), dict) else {}
    parts = {"event": event.get("eventId"), "lead": data.get("leadId"), "status": data.get("newStatus")}
    if not with_id:
        del parts["event"]
    words += [f"{title} {short(value)}" for title, value in parts.items() if isinstance(value, str)]
    return f"> {', '.join([*words, signed(request)])}"


def signed(request: Request) -> str:
    """Returns how a request is signed."""
    if request.form not in FORMS:
        return "not signed"
    return f"signed with {FORMS[request.form]}{'' if request.genuine else ' and a wrong secret'}"


def answer_line(answer: Answer, seconds: float) -> str:
    """Returns one line about an answer and the time that it took."""
    body = answer.json() or {}
    said = (
        short(str(body["outcome"]))
        if "outcome" in body
        else "(not an answer from the webhook function: does the URL end in /webhooks/sendpilot?)"
    )
    why = ": ".join(short(body[name], 200) for name in ("reason", "detail") if isinstance(body.get(name), str))
    return f"< {answer.status} {said}, {seconds * 1000:.0f} ms{f', {why}' if why else ''}"


def show_request(request: Request) -> None:
    """Prints the body of a request."""
    event = request.event()
    show(pretty(event) if event else ascii(request.body)[2:-1])


def show_answer(answer: Answer) -> None:
    """Prints the body of an answer."""
    body = answer.json()
    show(pretty(body) if body else printable(answer.body))


def short(text: str, longest: int = 64) -> str:
    """Returns at most `longest` characters of a text, printable."""
    return printable(text if len(text) <= longest else f"{text[: longest - 3]}...")


def printable(text: str) -> str:
    """Returns the text in ASCII on one line.

    Names, addresses and errors come from outside, and must not send control codes to the terminal.
    """
    return "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in text)


def pretty(value: Any) -> str:
    """Returns a value as indented JSON, in ASCII because the value may come from outside."""
    return json.dumps(value, indent=2)


def show(text: str) -> None:
    """Prints a text, indented."""
    for line in text.splitlines():
        print(f"    {line}")
    print(flush=True)
