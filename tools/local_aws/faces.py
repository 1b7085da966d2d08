"""An alert as people see it: its email, its chat card and its SMS, as text."""

import json
import re
from textwrap import indent

from ops.deliveries import bodies
from ops.display import pretty


def email(row: dict) -> str:
    """Returns the email of an alert, given its row in the table, which holds the exact publish request."""
    return f"Subject: {row['message']['Subject']}\n\n{bodies(row)['email'].strip()}"


def card(row: dict) -> str:
    """Returns the chat card of an alert, without its markup: `*label*` and code spans."""
    content = json.loads(bodies(row)["https"])["content"]
    text = f"{content['title']}\n{content['description']}".replace("\n\n", "\n")
    return re.sub(r"`([^`]*)`|\*([^*\n]+)\*", r"\1\2", text)


def faces(row: dict, everything: bool) -> str:
    """Returns the email, the chat card and the SMS, each under its name. With `everything`, also what programs get."""
    shown = {"Email": email(row), "Slack and Teams": card(row), "SMS": bodies(row)["sms"]}
    if everything:
        shown["SQS, Lambda and other programs"] = pretty(json.loads(bodies(row)["default"]))
        shown["Slack and Teams, as sent"] = pretty(json.loads(bodies(row)["https"]))
    return "\n".join(f"  {name}\n{indent(text, '    ')}\n" for name, text in shown.items())
