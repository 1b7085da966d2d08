"""Draws docs/images/dashboard.svg: the dashboard of template.yaml with every alarm, and a made-up week.

Without arguments, it writes the picture. With --check, it only compares it.
"""

import json
import re
import sys
from itertools import groupby
from pathlib import Path
from random import Random
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "dashboard.svg"
TEMPLATE = ROOT / "template.yaml"

COLUMN, ROW, GAP = 50, 40, 5  # CloudWatch's grid has 24 columns
EM = 0.62  # the width of a character, in font sizes; usual fonts are narrower on average
HOURS = 7 * 24
STATUSES = (
    *("PENDING", "CONNECTION_SENT", "CONNECTION_ACCEPTED", "MESSAGE_SENT", "REPLY_RECEIVED"),
    *("OPPORTUNITY", "MEETING_BOOKED", "NOT_INTERESTED", "DONE"),
)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
INK, PALE, RULE, RED, GREEN = "#16191f", "#687078", "#e9ebed", "#d13212", "#1d8102"
COLORS = ("#1f77b4", "#9467bd")  # of the lines of a query


def main():
    drawn = picture(dashboard(TEMPLATE.read_text()), Week())
    if "--check" not in sys.argv:
        PICTURE.write_text(drawn)
    elif not PICTURE.exists() or PICTURE.read_text() != drawn:
        sys.exit("docs/images/dashboard.svg is not the dashboard of template.yaml: run `make pictures`")


def dashboard(template, detailed=False):
    """Returns the dashboard's body. The standard library reads no YAML, but the body is JSON."""
    body = re.search(r"^ +DashboardBody: !Sub\n +- \|\n((?: {10}.*\n|\n)+)", template, re.MULTILINE)[1]
    blocks = re.search(
        r"- Details: !If\n +- HasDetailedMetrics\n +- !Sub \|\n((?: {14}.*\n)+) +- !Sub \|\n((?: {14}.*\n)+)", template
    )
    default = re.compile(r"^  (\w+):\n(?:    .*\n)*?    Default: (\d+)$", re.MULTILINE)
    added = re.compile(r"^ {10}(And\w+): !If \[\w+, !Sub '(.*)', \"\"\]$", re.MULTILINE)
    details = ("Details", blocks[1 if detailed else 2])
    for name, value in [*default.findall(template), *added.findall(template), details]:
        body = body.replace(f"${{{name}}}", value)
    return json.loads(body)


class Week:
    """One value per hour of each metric and of each column of a query over time.

    A campaign runs. On Wednesday, a secret is rotated late. On Thursday, SNS is down for two hours. On Friday, a
    subscriber cannot be reached.
    """

    OUTAGE = range(3 * 24 + 14, 3 * 24 + 16)
    UNREACHED = 4 * 24 + 11
    IN_ALARM = ("DeadLetters",)
    REJECTED = (
        (
            "13",
            "mismatch",
            "the signature matches no signing secret of this endpoint; compare the secret with the one SendPilot shows",
        ),
        ("9", "missing", "the request has no svix-signature or webhook-signature header"),
        ("4", "route", "send webhooks to POST /webhooks/sendpilot"),
    )

    def __init__(self):
        self._dice = Random(4)
        # The events of each status in a busy hour, in the order of the pipeline.
        changes = [self._hourly(rate) for rate in (40, 38, 15, 14, 6, 2.2, 1.1, 2.4, 0.6)]
        self.statuses = dict(zip(STATUSES, map(sum, changes), strict=True))
        alerts = self._late(changes[5])
        quick = [self._around(420, 0.2) if count else None for count in alerts]
        self._series = {
            "OldestPendingAge": self._only({self.OUTAGE[0]: 1740, self.OUTAGE[1]: 3420}),
            "OldestStreamPendingAge": self._only({self.OUTAGE[0]: 1680, self.OUTAGE[1]: 3360}),
            "NumberOfMessagesPublished AlertsTopic": alerts,
            "NumberOfNotificationsDelivered AlertsTopic": [
                3 * count - (hour == self.UNREACHED) for hour, count in enumerate(alerts)
            ],
            "NumberOfNotificationsFailed AlertsTopic": self._only({self.UNREACHED: 1}),
            "NumberOfNotificationsFailed StatusTopic": self._only({}),
            "p50": quick,
            "p99": [value and self._around(1.9 * value, 0.4) for value in quick],
        }

    def values(self, row):
        """Returns the values of a widget's row."""
        topic = re.match(r"\$\{(\w+Topic)\.", row[3])
        return self._series[f"{row[1]} {topic[1]}" if topic else row[1]]

    def queried(self, column):
        """Returns the values of a column of a query over time."""
        return self._series[column]

    def _hourly(self, rate):
        """Returns counts of something that happens `rate` times in a busy hour."""
        return [sum(self._dice.random() < rate * self._busy(hour) / 50 for _ in range(50)) for hour in range(HOURS)]

    @staticmethod
    def _busy(hour):
        day, hour = divmod(hour, 24)
        return (0.15 if day > 4 else 1) * max(0, 1 - ((hour - 13.5) / 6.5) ** 2)

    def _late(self, counts):
        """Returns the hours in which messages are published: after the outage, if they are due in it."""
        late = sum(counts[hour] for hour in self.OUTAGE)
        return [
            0 if hour in self.OUTAGE else count + late * (hour == self.OUTAGE[-1] + 1)
            for hour, count in enumerate(counts)
        ]

    def _around(self, value, spread):
        return round(value * (1 + spread * (2 * self._dice.random() - 1)), 1)

    @staticmethod
    def _only(values):
        return [values.get(hour, 0) for hour in range(HOURS)]


class Area:
    """A widget's area, and the frame of its graph below the title."""

    def __init__(self, widget):
        self.x, self.y = widget["x"] * COLUMN + GAP, widget["y"] * ROW + GAP
        self.width, self.height = widget["width"] * COLUMN - 2 * GAP, widget["height"] * ROW - 2 * GAP
        self.left, self.right = self.x + 52, self.x + self.width - 20
        self.top, self.bottom = self.y + 42, self.y + self.height - 44

    def at(self, hour, value, most):
        x = self.left + (self.right - self.left) * hour / (HOURS - 1)
        return f"{x:.1f},{self.bottom - (self.bottom - self.top) * value / most:.1f}"


def picture(body, week):
    widgets = body["widgets"]
    height = max(widget["y"] + widget["height"] for widget in widgets) * ROW
    parts = []
    for widget in widgets:
        area, properties = Area(widget), widget["properties"]
        size = f'width="{area.width}" height="{area.height}"'
        parts.append(f'<rect x="{area.x}" y="{area.y}" {size} rx="6" fill="#fff" stroke="#d5dbdb"/>')
        parts.append(text(area.x + 12, area.y + 21, properties["title"], size=13, weight="bold"))
        parts.extend(DRAWN[widget["type"], properties.get("view")](properties, week, area))
    note = "The dashboard of template.yaml with the lead status stream, and the numbers of a made-up week."
    parts.append(text(12, height + 16, note, PALE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height + 26}"'
        ' font-family="Helvetica, Arial, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#f2f3f3"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def alarms(properties, week, area):
    """Draws a tile per alarm, red or green."""
    names = [re.sub(r"^\$\{(\w+)Alarm\.Arn\}$", r"\1", arn) for arn in properties["alarms"]]
    columns = 3
    width, height = (area.width - 24) / columns, (area.height - 44) / -(-len(names) // columns)
    for number, name in enumerate(names):
        x, y = area.x + 12 + number % columns * width, area.y + 36 + number // columns * height
        fill, edge = ("#fdf3f1", RED) if name in week.IN_ALARM else ("#f2f8f0", GREEN)
        size = f'width="{width - 6:.0f}" height="{height - 6:.0f}"'
        yield f'<rect x="{x:.0f}" y="{y:.0f}" {size} rx="3" fill="{fill}" stroke="{edge}"/>'
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()
        yield text(x + 10, y + height / 2 + 1, label)
        yield text(
            x + width - 16, y + height / 2 + 1, "In alarm" if name in week.IN_ALARM else "OK", edge, anchor="end"
        )


def rows(properties, week):
    """Returns label, values and color of each line of a graph."""
    if query := properties.get("query"):
        columns = re.findall(r" as (\w+)", query)
        return [(column, week.queried(column), color) for column, color in zip(columns, COLORS)]
    by_id, found = {}, []
    for row in properties["metrics"]:
        options = row[-1]
        if "expression" in options:
            values = by_id[re.fullmatch(r"FILL\((\w+), 0\)", options["expression"])[1]]
        else:
            by_id[options.get("id")] = values = week.values(row)
        if options.get("visible", True):
            found.append((options["label"], values, options["color"]))
    return found


def lines(properties, week, area):
    """Draws lines over time, with their scale and legend."""
    found = rows(properties, week)
    marks = properties.get("annotations", {}).get("horizontal", [])
    most = nice(max([value or 0 for _, values, _ in found for value in values] + [mark["value"] for mark in marks]))
    for quarter in range(5):
        y = area.bottom - (area.bottom - area.top) * quarter / 4
        yield f'<path d="M{area.left} {y:.1f}H{area.right}" stroke="{RULE}"/>'
        yield text(area.left - 6, y + 4, f"{most * quarter // 4:,}", PALE, 10, anchor="end")
    for day, name in enumerate(DAYS):
        x = area.left + (area.right - area.left) * (day * 24 + 12) / (HOURS - 1)
        yield text(x, area.bottom + 14, name, PALE, 10, anchor="middle")
    for _, values, color in found:
        # A value between two gaps is a dot.
        for present, run in groupby(enumerate(values), lambda hour: hour[1] is not None):
            points = [area.at(hour, value, most) for hour, value in run if present]
            if len(points) > 1:
                yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.5"/>'
            elif points:
                x, y = points[0].split(",")
                yield f'<circle cx="{x}" cy="{y}" r="1.6" fill="{color}"/>'
    for mark in marks:
        x, y = area.at(0, mark["value"], most).split(",")
        yield f'<path d="M{x} {y}H{area.right}" stroke="{RED}" stroke-dasharray="5 4"/>'
        yield text(area.right - 4, float(y) - 4, mark["label"], RED, 10, anchor="end")
    x = area.x + 12
    for label, _, color in found:
        y = area.y + area.height - 10
        yield f'<rect x="{x:.0f}" y="{y - 8}" width="9" height="9" fill="{color}"/>'
        yield text(x + 13, y, label, PALE, 10)
        x += 22 + EM * 10 * len(label)


def bars(_, week, area):
    """Draws a bar per status, over the whole time."""
    counts = sorted(week.statuses.items(), key=lambda status: -status[1])
    height, left, most = (area.height - 44) / len(counts), area.x + 220, counts[0][1]
    for number, (label, total) in enumerate(counts):
        y = area.y + 34 + number * height
        width = max(1, (area.x + area.width - left - 70) * total / most)
        yield text(left - 10, y + height / 2 + 4, label, anchor="end")
        yield f'<rect x="{left}" y="{y + 2:.1f}" width="{width:.1f}" height="{height - 4:.1f}" fill="#1f77b4"/>'
        yield text(left + width + 6, y + height / 2 + 4, f"{total:,}", PALE)


def table(properties, week, area):
    """Draws the rows of a query: the conversion rates, or the rejected requests."""
    rate = r'"(\w+)"\)\) / sum\(strcontains\(newStatus, "(\w+)"\)\) \* 100 as (\w+)'
    if rates := re.findall(rate, properties["query"]):
        values = [f"{100 * week.statuses[part] / week.statuses[whole]:.1f}" for part, whole, _ in rates]
        found = [[column for *_, column in rates], values]
        places = [area.x + 12 + column * (area.width - 24) // 4 for column in range(4)]
    else:
        found = [("requests", "reason", "detail"), *week.REJECTED]
        places = (area.x + 12, area.x + 92, area.x + 192)
    for number, row in enumerate(found):
        y = area.y + 50 + number * 28
        if number:
            yield f'<path d="M{area.x + 12} {y - 18}H{area.x + area.width - 12}" stroke="{RULE}"/>'
        for x, cell in zip(places, row):
            yield text(x, y, cell, INK if number else PALE, weight="normal" if number else "bold")


DRAWN = {
    ("alarm", None): alarms,
    ("metric", "timeSeries"): lines,
    ("log", "timeSeries"): lines,
    ("log", "bar"): bars,
    ("log", "table"): table,
}


def nice(value):
    """Returns the next higher number whose quarters are easy to read."""
    step = 1
    while True:
        for most in (4, 8, 12, 20, 40, 60, 80):
            if value <= most * step:
                return most * step
        step *= 10


def text(x, y, content, fill=INK, size=12, weight="normal", anchor="start"):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{fill}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


if __name__ == "__main__":
    main()
