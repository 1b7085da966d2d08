"""The pictures in docs/ are those of the alerts that the code makes today."""

import json
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

from draw_alerts import ALERT, chat, pictures

PICTURES = {name: Path("docs", name) for name in pictures()}


def words(picture):
    """What can be read in it, but for how it is spaced."""
    return "".join("".join(xml.fromstring(picture).itertext()).split())


class Pictures(unittest.TestCase):
    def test_they_are_as_they_would_be_drawn_now(self):
        for name, drawn in pictures().items():
            self.assertEqual(PICTURES[name].read_text("utf-8"), drawn, f"docs/{name} is stale: make pictures")

    def test_every_word_of_the_e_mail_is_in_its_picture(self):
        picture = words(PICTURES["email.svg"].read_text("utf-8"))
        for file in ("subject.txt", "email.txt"):
            for line in (ALERT / file).read_text("utf-8").splitlines():
                self.assertIn("".join(line.split()), picture)

    def test_chat_is_drawn_as_slack_reads_its_markdown(self):
        hostile = json.loads((ALERT.parent / "opportunity-hostile/https.json").read_text("utf-8"))["content"]
        picture = words(chat(hostile, "10:30 AM"))
        for shown in ("lead_<!channel>'rm-rf'", '<https[:]//evil[.]example|click>&"quoted"\\back'):
            self.assertIn(shown, picture)
        self.assertNotIn("*Status", picture)


if __name__ == "__main__":
    unittest.main()
