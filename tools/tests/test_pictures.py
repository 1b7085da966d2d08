"""The pictures in docs/images/ show the alerts that the code makes today."""

import json
import xml.etree.ElementTree as xml
from itertools import combinations

import pytest

from draw_alerts import ALERT, DETAILED, ROOT, chat, pictures

PICTURES = {name: ROOT / "docs" / "images" / name for name in pictures()}
SVG = "{http://www.w3.org/2000/svg}"
EM = 0.62  # the width of a character in the font size's units; usual fonts are narrower on average


def words(picture):
    """Returns the text of a picture without spaces."""
    return "".join("".join(xml.fromstring(picture).itertext()).split())


def boxes(picture):
    """Returns the left, top, right and bottom edge of each text, and the text."""
    for element in xml.fromstring(picture).iter(f"{SVG}text"):
        text = "".join(element.itertext())
        x, y, size = (float(element.get(name)) for name in ("x", "y", "font-size"))
        width = len(text) * size * EM
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
        yield left, y - size, left + width, y + size * 0.25, text


def overlaps(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def drawn(name):
    """Returns the picture of the alert of a golden file, in Slack."""
    return chat(json.loads((ALERT.parent / name / "https.json").read_text("utf-8"))["content"], "10:30 AM")


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_up_to_date(name):
    assert PICTURES[name].read_text("utf-8") == pictures()[name], f"docs/images/{name} is stale: make pictures"


@pytest.mark.parametrize("file", ["subject.txt", "email.txt"])
@pytest.mark.parametrize(("alert", "name"), [(ALERT, "email.svg"), (DETAILED, "email-details.svg")])
def test_every_word_of_the_email_is_in_its_picture(alert, name, file):
    picture = words(PICTURES[name].read_text("utf-8"))
    for line in (alert / file).read_text("utf-8").splitlines():
        assert "".join(line.split()) in picture


@pytest.mark.parametrize(
    "picture",
    [
        *pictures().values(),
        *map(drawn, ("opportunity-minimal", "opportunity-hostile", "opportunity-hostile-details")),
    ],
)
def test_no_text_overlaps_another_or_leaves_its_picture(picture):
    right, bottom = (float(size) for size in xml.fromstring(picture).get("viewBox").split()[2:])
    texts = list(boxes(picture))
    assert len(texts) >= 3
    for left, top, end, low, text in texts:
        assert left >= 0 and top >= 0 and end <= right and low <= bottom, text
    assert [(one[-1], other[-1]) for one, other in combinations(texts, 2) if overlaps(one, other)] == []


def test_chat_is_drawn_as_slack_reads_its_markdown():
    picture = words(drawn("opportunity-hostile"))
    for shown in ("lead_\u2039!channel\u203a'rm-rf'", '\u2039https[:]//evil[.]example|click\u203a\uff06"quoted"\\back'):
        assert shown in picture
    assert "*Campaign*" not in picture
    assert "`" not in picture


def test_the_label_of_a_reply_is_drawn_without_its_markup():
    picture = words(drawn("opportunity-details"))
    assert "Lastreply,2hoursearlier:" in picture
    assert "*" not in picture
