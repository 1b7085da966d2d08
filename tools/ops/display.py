"""Requests and answers as a person likes to read them."""

import json
from typing import Any

from ops.request import Answer, Request
from ops.signature import DOCUMENTED, STANDARD, SVIX

FORMS = {SVIX: "Svix headers", STANDARD: "Standard Webhooks headers", DOCUMENTED: "the documented header"}


def show_request(request: Request, source: str) -> None:
    """Prints what is sent."""
    if request.form not in FORMS:
        signature = "not signed"
    else:
        signature = f"signed {'' if request.genuine else 'by a stranger '}with {FORMS[request.form]}"
    print(f"  > POST {source}, {signature}")
    try:
        body = pretty(json.loads(request.body))
    except ValueError:
        body = ascii(request.body)[2:-1]
    show(body)


def show_answer(answer: Answer) -> None:
    """Prints what came back."""
    print(f"  < {answer.status}")
    body = answer.json()
    show(pretty(body) if body else printable(answer.body))


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
