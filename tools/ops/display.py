"""Requests, answers and alerts as a person likes to read them."""

import json

from ops.deliveries import bodies
from ops.signature import DOCUMENTED, STANDARD, SVIX

FORMS = {SVIX: "Svix headers", STANDARD: "Standard Webhooks headers", DOCUMENTED: "the documented header"}


def show_request(request, source):
    """What is sent."""
    if request.form not in FORMS:
        signature = "not signed"
    else:
        signature = f"signed {'' if request.genuine else 'by a stranger '}with {FORMS[request.form]}"
    print(f"  > POST {source}, {signature}")
    try:
        body = _pretty(json.loads(request.body))
    except ValueError:
        body = ascii(request.body)[2:-1]
    _show(body)


def show_answer(answer):
    """What came back."""
    print(f"  < {answer.status}")
    body = answer.json()
    _show(_pretty(body) if body else printable(answer.body))


def show_alert(alert, row):
    """What subscribers get. `row` is the alert's row in the table, which holds the exact publish request."""
    print("  To a program (delivered: this is what the queue received)")
    _show(_pretty(alert.event))
    if row is None:
        print("  The table has no row of it.")
        return
    # ministack takes e-mail, SMS and HTTPS subscriptions, but delivers nothing to the first two.
    print("  By e-mail, SMS and chat (not delivered here: read from the publish request that the table's row keeps)")
    by_protocol = bodies(row)
    print("  e-mail")
    _show(f"Subject: {row['message']['Subject']}\n\n{by_protocol['email']}")
    print("  SMS")
    _show(by_protocol["sms"])
    print("  Slack and Teams")
    _show(_pretty(json.loads(by_protocol["https"])))


def printable(text):
    """ASCII only, on one line: names, addresses and errors come from outside, and must not steer the terminal."""
    return "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in text)


def _pretty(value):
    # ASCII only: what comes from a file must not steer the terminal.
    return json.dumps(value, indent=2)


def _show(text):
    for line in text.splitlines():
        print(f"    {line}")
    print(flush=True)
