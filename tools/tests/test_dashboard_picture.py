"""The picture of the dashboard is up to date and can be read."""

import xml.etree.ElementTree as xml
from itertools import combinations

import pytest

from draw_dashboard import EM, PICTURE, ROOT, TEMPLATE, Week, dashboard, picture

SVG = "{http://www.w3.org/2000/svg}"
BODY = dashboard(TEMPLATE.read_text("utf-8"))


@pytest.fixture(scope="module")
def drawn():
    return xml.fromstring(picture(BODY, Week()))


def boxes(drawn):
    """Returns each text with its left, top, right and bottom edge."""
    for element in drawn.iter(f"{SVG}text"):
        x, y, size = (float(element.get(name)) for name in ("x", "y", "font-size"))
        width = len(element.text) * size * EM
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
        yield element.text, left, y - size, left + width, y + size * 0.25


def test_the_picture_is_up_to_date():
    assert PICTURE.read_text("utf-8") == picture(BODY, Week()), "docs/images/dashboard.svg is stale: make pictures"


def test_every_widget_is_in_the_picture_and_has_the_same_title_with_detailed_metrics(drawn):
    titles = [widget["properties"]["title"] for widget in BODY["widgets"]]
    shown = [text for text, *_ in boxes(drawn)]
    assert [title for title in titles if title not in shown] == []
    detailed = dashboard(TEMPLATE.read_text("utf-8"), detailed=True)
    assert [widget["properties"]["title"] for widget in detailed["widgets"]] == titles


def test_no_text_overlaps_another_or_leaves_its_widget(drawn):
    frames = [
        [float(rect.get(name)) for name in ("x", "y", "width", "height")]
        for rect in drawn.iter(f"{SVG}rect")
        if rect.get("rx") == "6"
    ]
    assert len(frames) == len(BODY["widgets"])
    *texts, note = boxes(drawn)
    for text, left, top, right, bottom in texts:
        assert any(
            x <= left and y <= top and right <= x + width and bottom <= y + height for x, y, width, height in frames
        ), text
    overlapping = [
        (one[0], other[0])
        for one, other in combinations([*texts, note], 2)
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ]
    assert overlapping == []


def test_the_rejections_are_those_of_the_code():
    code = "".join(
        (ROOT / "src" / file).read_text("utf-8") for file in ("sendpilot/signature.rs", "webhook/response.rs")
    )
    assert [detail for *_, detail in Week.REJECTED if detail not in code] == []
