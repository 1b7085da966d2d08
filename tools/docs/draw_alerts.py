"""Draws an alert as people see it: email.svg, chat.svg and sms.svg, from the golden files of the tests.

email-details.svg, chat-details.svg and sms-details.svg show the alert with details of the lead.

The words are those of the files. The frame resembles that of a mail client, of Slack or of a phone. `make pictures`
draws them, and a test fails while they are stale.
"""

import json
import re
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALERT = ROOT / "events/alerts/opportunity"
DETAILED = ROOT / "events/alerts/opportunity-details"
WIDTH = 720
MARGIN = 28
SANS = "-apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, DIM, LINE, LINK, CODE = "#1d1c1d", "#616061", "#dddddd", "#1264a3", "#c01343"

# The width of a character in the font size's units. Usual fonts are narrower on average.
EM = 0.62

# The text that SNS puts below every email.
FOOTER = """--
If you wish to stop receiving notifications from this topic, please click or visit the link below to unsubscribe:
https://sns.us-east-1.amazonaws.com/unsubscribe.html?SubscriptionArn=…

Please do not reply directly to this email. If you have any questions or comments regarding this email, please \
contact us at
https://aws.amazon.com/support"""


def main():
    for name, picture in pictures().items():
        (ROOT / "docs" / "images" / name).write_text(picture, encoding="utf-8")


def pictures():
    """Returns the pictures by file name."""
    return _pictures(ALERT, "") | _pictures(DETAILED, "-details")


def _pictures(alert, suffix):
    """Returns the pictures of the alert in this folder, whose file names end with the suffix."""

    def read(name):
        return (alert / name).read_text(encoding="utf-8")

    at = datetime.fromisoformat(json.loads(read("default.json"))["time"].replace("Z", "+00:00"))
    clock = f"{at.hour % 12 or 12}:{at:%M %p}"
    return {
        f"email{suffix}.svg": email(_sender(), read("subject.txt"), read("email.txt"), f"{at.day} {at:%B %Y, %H:%M}"),
        f"chat{suffix}.svg": chat(json.loads(read("https.json"))["content"], clock),
        f"sms{suffix}.svg": sms(read("sms.txt"), clock),
    }


def _sender():
    """Returns the topic's display name, which SNS uses as the sender's name."""
    return re.search(r"^ +DisplayName: (.+)$", (ROOT / "template.yaml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def email(sender, subject, body, time):
    """Draws a mail client's window with one email."""
    picture = Picture(f"The email: {subject}")
    picture.avatar(MARGIN, 24, sender[0], "#4a6fa5", 20)
    picture.text(82, 41, [bold(sender)], 15)
    picture.text(82, 61, [plain("no-reply@sns.amazonaws.com", fill=DIM)], 13)
    picture.text(WIDTH - MARGIN, 41, [plain(time, fill=DIM)], 13, anchor="end")
    y = picture.text(MARGIN, 102, [bold(subject)], 21)
    picture.rule(y + 20)
    y += 52
    for line in body.rstrip("\n").split("\n"):
        y = picture.text(MARGIN, y, spans(line), 14) + (21 if line else 12)
    y += 10
    for line in FOOTER.split("\n"):
        y = picture.text(MARGIN, y, spans(line, fill=DIM), 11) + 16
    return picture.svg(y + 8)


def chat(content, time):
    """Draws Slack with one message of Amazon Q Developer, whose text is Slack's own markdown."""
    picture = Picture(f"The message in Slack: {content['title'].replace('`', '')}")
    picture.avatar(MARGIN, 24, "Q", "#6b3fd4", 8)
    picture.text(82, 39, [bold("Amazon Q"), plain(f"  APP  {time}", fill=DIM)], 15)
    y = picture.text(82, 66, [(text, {"weight": 700, **style}) for text, style in spans(content["title"])], 15) + 26
    for line in content["description"].split("\n"):
        y = picture.text(82, y, spans(line), 15) + (25 if line else 10)
    return picture.svg(y + 2)


def sms(text, time):
    """Draws a phone's messages with one SMS."""
    picture = Picture(f"The SMS: {text}")
    picture.text(MARGIN, 34, [plain(f"Text message  {time}", fill=DIM)], 12)
    bottom = picture.bubble(MARGIN, 48, 400, spans(text), 15)
    return picture.svg(bottom + 12)


def plain(text, fill=INK):
    return text, {"fill": fill}


def bold(text):
    return text, {"fill": INK, "weight": 700}


def spans(line, fill=INK):
    """Returns the parts of a line, each with its style. A link, a label and a code span have their own."""
    parts = []
    # A label and its value stay on one line.
    line = re.sub(r"(?<!\S)(\*[^*`]+\*) ", "\\1\N{NO-BREAK SPACE}", line)
    for label, code, link, text in re.findall(r"(?<!\S)\*([^*`]+)\*(?![^\s,:])|`([^`]*)`|(https://\S+)|(.)", line):
        if label:
            parts.append(bold(label))
        elif code:
            parts.append((code, {"fill": CODE, "font": MONO}))
        elif link:
            parts.append(plain(link, LINK))
        elif parts and parts[-1][1] == {"fill": fill}:
            parts[-1] = plain(parts[-1][0] + text, fill)
        else:
            parts.append(plain(text, fill))
    return parts


class Picture:
    """An SVG that grows."""

    def __init__(self, title):
        self._title = title
        self._parts = []

    def _add(self, part):
        self._parts.append(part)

    def text(self, x, y, parts, size, anchor="start"):
        """Adds one line of text, or more if it is too wide, and returns the baseline of the last one.

        A line is one element, so that its parts follow each other in any font of the reader.
        """
        room = WIDTH - MARGIN - x if anchor == "start" else WIDTH
        for index, line in enumerate(_wrapped(parts, size, room)):
            y += index and size * 1.5
            shown = "".join(_span(text, **style) for text, style in line)
            self._add(
                f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" xml:space="preserve">'
                f"{shown}</text>"
            )
        return y

    def bubble(self, x, y, width, parts, size):
        """Adds text on a rounded ground, and returns the y coordinate of the ground's end."""
        lines = _wrapped(parts, size, width - 32)
        height = len(lines) * size * 1.5 + 16
        self._add(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="16" fill="#e9e9eb"/>')
        for index, line in enumerate(lines):
            self.text(x + 16, y + 24 + index * size * 1.5, line, size)
        return y + height

    def avatar(self, x, y, letter, fill, radius):
        self._add(f'<rect x="{x}" y="{y}" width="40" height="40" rx="{radius}" fill="{fill}"/>')
        self.text(x + 20, y + 27, [(letter, {"fill": "#ffffff", "weight": 700})], 20, anchor="middle")

    def rule(self, y):
        self._add(f'<path d="M{MARGIN} {y:g}H{WIDTH - MARGIN}" stroke="{LINE}"/>')

    def svg(self, height):
        frame = (
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" fill="#ffffff" stroke="{LINE}"/>'
        )
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
            f' height="{height:g}" role="img" font-family="{SANS}">',
            f"<title>{escape(self._title, quote=False)}</title>",
            frame,
            *self._parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def _span(text, fill, weight=400, font=None):
    attributes = f'fill="{fill}"'
    if weight != 400:
        attributes += f' font-weight="{weight}"'
    if font:
        attributes += f' font-family="{font}" font-size="0.87em"'
    return f"<tspan {attributes}>{escape(text, quote=False)}</tspan>"


def _wrapped(parts, size, width):
    """Splits a line at blanks into lines of at most this width."""
    words = [[]]
    for text, style in parts:
        for character in text:
            words[-1].append((character, style))
            if character == " ":
                words.append([])
    lines = [[]]
    for word in words:
        if lines[-1] and len(lines[-1] + word) * size * EM > width:
            lines.append([])
        lines[-1] += word
    runs = [groupby(line, key=lambda item: item[1]) for line in lines if line]
    return [[("".join(character for character, _ in run), style) for style, run in line] for line in runs]


if __name__ == "__main__":
    main()
