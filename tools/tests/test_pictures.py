"""The pictures in docs/images/ show the alerts that the code makes today."""

import json
import xml.etree.ElementTree as xml

import pytest

from draw_alerts import ALERT, ROOT, chat, pictures

PICTURES = {name: ROOT / "docs" / "images" / name for name in pictures()}


def words(picture):
    """Returns the text of a picture without spaces."""
    return "".join("".join(xml.fromstring(picture).itertext()).split())


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_up_to_date(name):
    assert PICTURES[name].read_text("utf-8") == pictures()[name], f"docs/images/{name} is stale: make pictures"


@pytest.mark.parametrize("file", ["subject.txt", "email.txt"])
def test_every_word_of_the_email_is_in_its_picture(file):
    picture = words(PICTURES["email.svg"].read_text("utf-8"))
    for line in (ALERT / file).read_text("utf-8").splitlines():
        assert "".join(line.split()) in picture


def test_chat_is_drawn_as_slack_reads_its_markdown():
    hostile = json.loads((ALERT.parent / "opportunity-hostile/https.json").read_text("utf-8"))["content"]
    picture = words(chat(hostile, "10:30 AM"))
    for shown in ("lead_<!channel>'rm-rf'", '<https[:]//evil[.]example|click>&"quoted"\\back'):
        assert shown in picture
    assert "*Status" not in picture
