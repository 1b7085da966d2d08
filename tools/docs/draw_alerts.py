"""Draws an alert as people see it: email.svg and chat.svg, from the golden files of the tests.

The words are those of the files. The frame resembles that of a mail client or of Slack. `make pictures` draws them; a
test fails while they are stale.
"""

import json
import re
from datetime import datetime
from html import escape, unescape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALERT = ROOT / "events/alerts/opportunity"
WIDTH = 720
SANS = "-apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, DIM, LINE, LINK, CODE = "#1d1c1d", "#616061", "#dddddd", "#1264a3", "#c01343"

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
    event = json.loads(_read("default.json"))
    at = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
    return {
        "email.svg": email(_sender(), _read("subject.txt"), _read("email.txt"), f"{at.day} {at:%B %Y, %H:%M}"),
        "chat.svg": chat(json.loads(_read("https.json"))["content"], f"{at.hour % 12 or 12}:{at:%M %p}"),
    }


def _read(name):
    return (ALERT / name).read_text(encoding="utf-8")


def _sender():
    """Returns the topic's display name, which SNS uses as the sender's name."""
    return re.search(r"^ +DisplayName: (.+)$", (ROOT / "template.yaml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def email(sender, subject, body, time):
    """Draws a mail client's window with one email."""
    picture = Picture(f"The e-mail: {subject}")
    picture.avatar(28, 24, sender[0], "#4a6fa5", 20)
    picture.text(82, 41, sender, 15, weight=700)
    picture.text(82, 61, "no-reply@sns.amazonaws.com", 13, fill=DIM)
    picture.text(WIDTH - 28, 41, time, 13, fill=DIM, anchor="end")
    picture.text(28, 102, subject, 21, weight=700)
    picture.rule(122)
    y = 152
    for line in body.rstrip("\n").split("\n"):
        picture.mono(28, y, line, 13.5)
        y += 22
    y += 10
    for line in FOOTER.split("\n"):
        picture.text(28, y, line, 11, fill=DIM)
        y += 16
    return picture.svg(y + 8)


def chat(content, time):
    """Draws Slack with one message of Amazon Q Developer, whose text is Slack's own markdown."""
    picture = Picture(f"The message in Slack: {content['title']}")
    picture.avatar(28, 24, "Q", "#6b3fd4", 8)
    end = picture.text(82, 39, "Amazon Q", 15, weight=700)
    picture.chip(end + 8, 39, "APP")
    picture.text(end + 46, 39, time, 12, fill=DIM)
    picture.text(82, 66, unescape(content["title"]), 15, weight=700)
    y = 92
    for line in content["description"].split("\n"):
        x = 82
        for bold, code, link, plain in re.findall(r"\*([^*`]+)\*|`([^`]*)`|(https://\S+)|([^*`]+)", line):
            if bold:
                x = picture.text(x, y, bold, 15, weight=700) + 5
            elif code:
                x = picture.code(x, y, unescape(code))
            elif link:
                x = picture.text(x, y, unescape(link), 15, fill=LINK)
            elif plain.strip():
                x = picture.text(x, y, unescape(plain), 15)
        y += 25 if line else 8
    return picture.svg(y + 2)


class Picture:
    """An SVG that grows. Each method that sets text returns the x coordinate of its end."""

    def __init__(self, title):
        self._title = title
        self._parts = []

    def _add(self, part):
        self._parts.append(part)

    def text(self, x, y, text, size, weight=400, fill=INK, anchor="start"):
        # The width does not depend on the reader's fonts, so that the next text on the line fits.
        width = _width(text, size, weight)
        self._add(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{fill}"'
            f' text-anchor="{anchor}" textLength="{width:g}" lengthAdjust="spacingAndGlyphs">'
            f"{escape(text, quote=False)}</text>"
        )
        return round(x + width, 1)

    def mono(self, x, y, text, size, fill=INK):
        width = round(len(text) * size * 0.6, 1)
        if not text:
            return x
        shown = re.sub(
            r"https://\S+", lambda link: f'<tspan fill="{LINK}">{link[0]}</tspan>', escape(text, quote=False)
        )
        self._add(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-family="{MONO}" fill="{fill}" xml:space="preserve"'
            f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs">{shown}</text>'
        )
        return round(x + width, 1)

    def code(self, x, y, text):
        width = round(len(text) * 13 * 0.6 + 8, 1)
        self._add(
            f'<rect x="{x:g}" y="{y - 15:g}" width="{width:g}" height="20" rx="3" fill="#f6f6f6" stroke="{LINE}"/>'
        )
        self.mono(x + 4, y, text, 13, CODE)
        return round(x + width, 1)

    def chip(self, x, y, text):
        self._add(f'<rect x="{x:g}" y="{y - 12:g}" width="30" height="15" rx="2" fill="#e8e8e8"/>')
        self.text(x + 5, y - 1, text, 10, weight=700, fill=DIM)

    def avatar(self, x, y, letter, fill, radius):
        self._add(f'<rect x="{x}" y="{y}" width="40" height="40" rx="{radius}" fill="{fill}"/>')
        self._add(
            f'<text x="{x + 20}" y="{y + 27}" font-size="20" font-weight="700" fill="#ffffff" text-anchor="middle">'
            f"{letter}</text>"
        )

    def rule(self, y):
        self._add(f'<path d="M28 {y}H{WIDTH - 28}" stroke="{LINE}"/>')

    def svg(self, height):
        frame = (
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="{LINE}"/>'
        )
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" font-family="{SANS}">',
            f"<title>{escape(self._title, quote=False)}</title>",
            frame,
            *self._parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def _width(text, size, weight):
    """Returns about the width in Helvetica."""
    ems = 0
    for character in text:
        if character in "ijl.,:;'|!":
            ems += 0.25
        elif character in "frtI()[]-/ ":
            ems += 0.31
        elif character in "mwMW@—…":
            ems += 0.86
        elif character.isupper():
            ems += 0.69
        else:
            ems += 0.54
    return round(ems * size * (1.06 if weight > 400 else 1), 1)


if __name__ == "__main__":
    main()
