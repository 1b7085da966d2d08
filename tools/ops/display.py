"""Requests and answers as a person likes to read them."""

import json
from typing import Any

from ops.request import Answer, Request
from ops.signature import DOCUMENTED, STANDARD, SVIX

FORMS = {SVIX: "Svix headers", STANDARD: "Standard Webhooks headers", DOCUMENTED: "the documented header"}


def request_line(request: Request, name: str, with_id: bool = True) -> str:
    """Returns one line about what is sent. `name` is that of the sample or of the file."""
    words = [printable(name)]
    event = request.event()
    data = event.get("data") if isinstance(event.get("data"), dict) else {}
    parts = {"event": event.get("eventId"), "lead": data.get("leadId"), "status": data.get("newStatus")}
    if not with_id:
        del parts["event"]
    words += [f"{title} {short(value)}" for title, value in parts.items() if isinstance(value, str)]
    return f"> {', '.join([*words, signed(request)])}"


def signed(request: Request) -> str:
    """Says how a request is signed."""
    if request.form not in FORMS:
        return "not signed"
    return f"signed {'' if request.genuine else 'by a stranger '}with {FORMS[request.form]}"


def answer_line(answer: Answer, seconds: float) -> str:
    """Returns one line about what came back, and the number of seconds that it took."""
    body = answer.json() or {}
    said = (
        short(str(body["outcome"]))
        if "outcome" in body
        else "(not an answer of the function: does the URL end in /webhooks/sendpilot?)"
    )
    why = ": ".join(short(body[name], 200) for name in ("reason", "detail") if isinstance(body.get(name), str))
    return f"< {answer.status} {said}, {seconds * 1000:.0f} ms{f', {why}' if why else ''}"


def show_request(request: Request) -> None:
    """Prints the body of what is sent."""
    event = request.event()
    show(pretty(event) if event else ascii(request.body)[2:-1])


def show_answer(answer: Answer) -> None:
    """Prints the body of what came back."""
    body = answer.json()
    show(pretty(body) if body else printable(answer.body))


def short(text: str, longest: int = 64) -> str:
    """Returns the beginning of a text, printable."""
    return printable(text if len(text) <= longest else f"{text[: longest - 3]}...")


def printable(text: str) -> str:
    """Returns the text in ASCII on one line.

    Names, addresses and errors come from outside, and must not steer the terminal.
    """
    return "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in text)


def pretty(value: Any) -> str:
    """Returns a value as indented JSON in ASCII, because it may come from outside too."""
    return json.dumps(value, indent=2)


def show(text: str) -> None:
    """Prints a text with an indent."""
    for line in text.splitlines():
        print(f"    {line}")
    print(flush=True)
