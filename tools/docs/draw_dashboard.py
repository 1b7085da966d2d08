"""Draws docs/images/dashboard.svg: the dashboard of template.yaml under all parameters, with the numbers of a made-up week.

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

COLUMN, ROW, GAP = 50, 44, 5  # CloudWatch's grid has 24 columns
HOURS = 7 * 24
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
INK, PALE, RULE = "#16191f", "#687078", "#e9ebed"


def main():
    drawn = picture(dashboard(TEMPLATE.read_text()), Week())
    if "--check" not in sys.argv:
        PICTURE.write_text(drawn)
    elif not PICTURE.exists() or PICTURE.read_text() != drawn:
        sys.exit("docs/images/dashboard.svg is not the dashboard of template.yaml: run `make pictures`")


def dashboard(template):
    """Returns the dashboard's body. The standard library reads no YAML, but the body is JSON."""
    body = re.search(r"^ +DashboardBody: !Sub\n +- \|\n((?: {10}.*\n|\n)+)", template, re.MULTILINE)[1]
    default = re.compile(r"^  (\w+):\n(?:    .*\n)*?    Default: (\d+)$", re.MULTILINE)
    added = re.compile(r"^ {8}[- ] (And\w+): !If \[\w+, !Sub '(.*)', \"\"\]$", re.MULTILINE)
    for name, value in default.findall(template) + added.findall(template):
        body = body.replace(f"${{{name}}}", value)
    return json.loads(body)


class Week:
    """One value per hour, or None, of each metric.

    A campaign runs. On Wednesday, a secret is rotated late. On Thursday, SNS is down for two hours. On Friday, a
    subscriber cannot be reached.
    """

    OUTAGE = range(3 * 24 + 14, 3 * 24 + 16)
    ROTATED = 2 * 24 + 9
    UNREACHED = 4 * 24 + 11

    def __init__(self):
        self._dice = Random(4)
        pipeline = {
            "PENDING": 40,
            "CONNECTION_SENT": 38,
            "CONNECTION_ACCEPTED": 15,
            "MESSAGE_SENT": 14,
            "REPLY_RECEIVED": 6,
            "OPPORTUNITY": 2.2,
            "MEETING_BOOKED": 1.1,
            "NOT_INTERESTED": 2.4,
            "DONE": 0.6,
            "OTHER": 0.3,
        }
        changes = {status: self._hourly(rate) for status, rate in pipeline.items()}
        due = changes["OPPORTUNITY"]
        all_changes = [sum(counts) for counts in zip(*changes.values())]
        out = [0 if hour in self.OUTAGE else count for hour, count in enumerate(due)]
        streamed = [0 if hour in self.OUTAGE else count for hour, count in enumerate(all_changes)]
        alerts_waiting, changes_waiting = (sum(counts[hour] for hour in self.OUTAGE) for counts in (due, all_changes))
        waiting = alerts_waiting + changes_waiting
        last = self.OUTAGE[-1]
        quick = [self._around(420 if count else None, 0.2) for count in out]
        refused = self._only({self.OUTAGE[0]: alerts_waiting * 4})
        self._series = {
            **{("StatusChanges", status): counts for status, counts in changes.items()},
            "Opportunities": [count + 4 * alerts_waiting * (hour == self.OUTAGE[0]) for hour, count in enumerate(due)],
            "Alerted": out,
            "Debounced": [int(self._dice.random() < count / 12) for count in out],
            "Streamed": streamed,
            "StreamPending": [count if hour in self.OUTAGE else 0 for hour, count in enumerate(all_changes)],
            "Published": self._only({last: waiting}),
            "StillPending": self._only({self.OUTAGE[0]: waiting, last: waiting}),
            "OldestPendingAge": self._only({self.OUTAGE[0]: 1740, last: 3420, last + 1: 0}),
            "OldestStreamPendingAge": self._only({self.OUTAGE[0]: 1680, last: 3360, last + 1: 0}),
            "TimeToAlert p50": quick,
            "TimeToAlert p99": [self._around(value, 0.4, 1.9) for value in quick],
            "Ignored": self._hourly(1.5),
            "Duplicate": [int(self._dice.random() < count / 9) for count in out],
            "InProgress": self._only({self.OUTAGE[0] + 1: 1}),
            "Unavailable": refused,
            **{("Rejected", reason): self._only({}) for reason in ("malformed", "body", "too_large")},
            ("Rejected", "mismatch"): self._only({self.ROTATED: 9, self.ROTATED + 1: 4}),
            ("Rejected", "stale"): self._only({self.ROTATED + 31: 1}),
            ("Rejected", "missing"): [int(self._dice.random() < 0.08) * 3 for _ in range(HOURS)],
            ("Rejected", "route"): [int(self._dice.random() < 0.06) * 2 for _ in range(HOURS)],
            ("Errors", "Webhook"): self._only({}),
            ("Errors", "Redrive"): self._only({}),
            "Throttles": self._only({}),
            "5xx": refused,
            ("Duration", "Webhook", "p50"): [self._around(3, 0.3) for _ in range(HOURS)],
            ("Duration", "Webhook", "Maximum"): [
                7610 if hour == self.OUTAGE[0] else self._around(90 if count else 12, 0.5)
                for hour, count in enumerate(out)
            ],
            ("Duration", "Redrive", "Maximum"): [
                self._around(5200 if hour in self.OUTAGE else 16, 0.3) for hour in range(HOURS)
            ],
            "ClaimTime": [self._around(14 if count else None, 0.4) for count in out],
            "PublishTime": [self._around(31 if count else None, 0.4) for count in out],
            "CompleteTime": [self._around(11 if count else None, 0.4) for count in out],
            ("NumberOfNotificationsDelivered", "StatusTopic"): [
                count + changes_waiting * (hour == last) for hour, count in enumerate(streamed)
            ],
            ("NumberOfNotificationsFailed", "StatusTopic"): self._only({}),
            "NumberOfMessagesPublished": [count + alerts_waiting * (hour == last) for hour, count in enumerate(out)],
            "NumberOfNotificationsDelivered": [
                3 * count - (hour == self.UNREACHED) + 3 * alerts_waiting * (hour == last)
                for hour, count in enumerate(out)
            ],
            "NumberOfNotificationsFailed": self._only({self.UNREACHED: 1}),
            ("ApproximateNumberOfMessagesVisible", "DeadLetters"): [
                int(hour >= self.UNREACHED) for hour in range(HOURS)
            ],
            ("ApproximateNumberOfMessagesVisible", "RedriveFailures"): self._only({}),
        }
        self.alarmed = {"DeadLetters"}

    def values(self, row, stat):
        """Returns the values of a widget's row under a statistic."""
        name, dimensions = row[1], row[3::2]
        owner = re.match(r"\$\{([A-Z][a-z]+)", dimensions[0])[1]
        resource = dimensions[0].strip("${}").split(".")[0]
        for key in (
            (name, dimensions[-1]),
            (name, owner, stat),
            (name, owner),
            (name, resource),
            f"{name} {stat}",
            name,
        ):
            if key in self._series:
                return self._series[key]
        raise KeyError(f"tools/docs/draw_dashboard.py has no sample of {row}")

    def _hourly(self, rate):
        """Returns counts of something that happens `rate` times in a busy hour."""
        return [sum(self._dice.random() < rate * self._busy(hour) / 50 for _ in range(50)) for hour in range(HOURS)]

    @staticmethod
    def _busy(hour):
        day, hour = divmod(hour, 24)
        return (0.15 if day > 4 else 1) * max(0, 1 - ((hour - 13.5) / 6.5) ** 2)

    def _around(self, value, spread, factor=1):
        return value and round(value * factor * (1 + spread * (2 * self._dice.random() - 1)), 1)

    @staticmethod
    def _only(values):
        return [values.get(hour, 0) for hour in range(HOURS)]


def picture(dashboard, week):
    widgets = dashboard["widgets"]
    height = max(widget["y"] + widget["height"] for widget in widgets) * ROW
    parts = []
    for widget in widgets:
        x, y = widget["x"] * COLUMN + GAP, widget["y"] * ROW + GAP
        area = Area(widget["width"] * COLUMN - 2 * GAP, widget["height"] * ROW - 2 * GAP)
        properties = widget["properties"]
        view = DRAWN[properties.get("view", widget["type"])]
        inner = [
            f'<rect width="{area.width}" height="{area.height}" rx="6" fill="#fff" stroke="#d5dbdb"/>',
            text(12, 21, properties["title"], size=13, weight="bold"),
            *view(properties, week, area),
        ]
        parts.append(f'<g transform="translate({x} {y})">\n' + "\n".join(inner) + "\n</g>")
    note = text(
        12,
        height + 16,
        "The dashboard of template.yaml with the lead status stream, and the numbers of a made-up week.",
        PALE,
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height + 26}"'
        ' font-family="Helvetica, Arial, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#f2f3f3"/>\n' + "\n".join([*parts, note]) + "\n</svg>\n"
    )


class Area:
    """The area of a widget: its size, and below its title the frame of its graph."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.left, self.top, self.right, self.bottom = 44, 38, width - 44, height - 42

    def x(self, hour):
        return self.left + (self.right - self.left) * hour / (HOURS - 1)

    def y(self, value, most):
        return self.bottom - (self.bottom - self.top) * value / most


def alarm(properties, week, area):
    """Draws a tile per alarm, red or green."""
    names = [re.sub(r"^\$\{(\w+)Alarm\.Arn\}$", r"\1", arn) for arn in properties["alarms"]]
    columns = 7
    width, height = (area.width - 24) / columns, (area.height - 44) / -(-len(names) // columns)
    for number, name in enumerate(names):
        x, y = 12 + number % columns * width, 34 + number // columns * height
        red = name in week.alarmed
        fill, edge, state = ("#fdf3f1", "#d13212", "In alarm") if red else ("#f2f8f0", "#1d8102", "OK")
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()
        size = f'width="{width - 8:.0f}" height="{height - 8:.0f}"'
        yield f'<rect x="{x:.0f}" y="{y:.0f}" {size} rx="3" fill="{fill}" stroke="{edge}"/>'
        yield text(x + 10, y + round(0.36 * height), label, weight="bold")
        yield text(x + 10, y + round(0.66 * height), state, edge)


def single_value(properties, week, area):
    """Draws a number per visible row."""
    rows = list(series(properties, week))
    for number, (label, values, _, _) in enumerate(rows):
        x = 12 + number * (area.width - 24) / len(rows)
        present = [value for value in values if value is not None]
        if not properties.get("setPeriodToTimeRange"):
            value = values[-1]
        elif properties["stat"] == "Sum":
            value = sum(present)
        else:
            value = sorted(present)[len(present) // 2]
        yield text(x, 72, f"{value:,.0f}", size=30)
        yield text(x, 96, label, PALE)


def time_series(properties, week, area):
    """Draws lines, or stacked areas."""
    rows = list(series(properties, week))
    places = list(legend(area, [label for label, *_ in rows]))
    area.bottom -= 14 * places[-1][1]
    stacked = properties.get("stacked")
    lines = properties.get("annotations", {}).get("horizontal", [])
    scale = {}
    for side in ("left", "right"):
        columns = [values for _, values, _, of in rows if of == side]
        if columns:
            totals = [[value or 0 for value in hour] for hour in zip(*columns)]
            highest = max(sum(hour) if stacked else max(hour) for hour in totals)
            scale[side] = nice(
                max([highest, 1] + [line["value"] for line in lines if line.get("yAxis", "left") == side])
            )
    yield from frame(area, scale)
    floor = [0] * HOURS
    for _, values, color, side in rows:
        if stacked:
            ceiling = [low + (value or 0) for low, value in zip(floor, values)]
            up, down = (corners(area, enumerate(edge), scale[side]) for edge in (ceiling, floor))
            yield f'<polygon points="{" ".join(up + down[::-1])}" fill="{color}" fill-opacity="0.75"/>'
            floor = ceiling
        else:
            yield from broken_line(area, values, color, scale[side])
    for line in lines:
        y = area.y(line["value"], scale[line.get("yAxis", "left")])
        yield f'<path d="M{area.left} {y:.1f}H{area.right}" stroke="#d13212" stroke-dasharray="5 4"/>'
        yield text(area.right - 4, y - 4, line["label"], "#d13212", size=10, anchor="end")
    for (label, _, color, _), (x, line) in zip(rows, places):
        y = area.height - 10 - 14 * (places[-1][1] - line)
        yield f'<rect x="{x:.0f}" y="{y - 8}" width="9" height="9" fill="{color}"/>'
        yield text(x + 13, y, label, PALE, 10)


def bar(properties, week, area):
    """Draws a bar per row, over the whole time."""
    rows = list(series(properties, week))
    totals = [sum(values) for _, values, _, _ in rows]
    height = (area.height - 44) / len(rows)
    left, most = 150, max(totals)
    for number, ((label, _, color, _), total) in enumerate(zip(rows, totals)):
        y = 34 + number * height
        width = max(1, (area.width - left - 70) * total / most)
        yield text(left - 10, y + height / 2 + 4, label, anchor="end")
        yield f'<rect x="{left}" y="{y + 2:.1f}" width="{width:.1f}" height="{height - 4:.1f}" fill="{color}"/>'
        yield text(left + width + 6, y + height / 2 + 4, f"{total:,}", PALE)


DRAWN = {"alarm": alarm, "singleValue": single_value, "timeSeries": time_series, "bar": bar}


def series(properties, week):
    """Returns label, values, color and axis of each visible row."""
    by_id = {}
    for row in properties["metrics"]:
        options = row[-1]
        if "expression" in options:
            values = evaluated(options["expression"], by_id)
        else:
            values = week.values(row[:-1], options.get("stat", properties.get("stat")))
            by_id[options.get("id")] = values
        if options.get("visible", True):
            yield options["label"], values, options.get("color", INK), options.get("yAxis", "left")


def evaluated(expression, by_id):
    """Evaluates the two expressions of the dashboard: a filled gap, and the share of one total in another."""
    if filled := re.fullmatch(r"FILL\((\w+), 0\)", expression):
        return [value or 0 for value in by_id[filled[1]]]
    part, whole = re.fullmatch(r"100 \* (\w+) / (\w+)", expression).groups()
    return [100 * sum(by_id[part]) / sum(by_id[whole])]


def frame(area, scale):
    for quarter in range(5):
        y = area.y(quarter, 4)
        yield f'<path d="M{area.left} {y:.1f}H{area.right}" stroke="{RULE}"/>'
        for side, most in scale.items():
            x, anchor = (area.left - 6, "end") if side == "left" else (area.right + 6, "start")
            yield text(x, y + 4, f"{most * quarter // 4:,}", PALE, 10, anchor=anchor)
    for day, name in enumerate(DAYS):
        yield text(area.x(day * 24 + 12), area.bottom + 14, name, PALE, 10, anchor="middle")


def broken_line(area, values, color, most):
    """Returns the lines of a graph with gaps. A value between two gaps is a dot."""
    for present, run in groupby(enumerate(values), lambda hour: hour[1] is not None):
        if not present:
            continue
        line = corners(area, run, most)
        if len(line) > 1:
            yield f'<polyline points="{" ".join(line)}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        else:
            x, y = line[0].split(",")
            yield f'<circle cx="{x}" cy="{y}" r="1.6" fill="{color}"/>'


def corners(area, values, most):
    """Returns the points of a line, without those inside a level stretch."""
    line = [(f"{area.x(hour):.1f}", f"{area.y(value, most):.1f}") for hour, value in values]
    level = {i for i in range(1, len(line) - 1) if line[i - 1][1] == line[i][1] == line[i + 1][1]}
    return [",".join(point) for i, point in enumerate(line) if i not in level]


def legend(area, labels):
    """Returns the place of each label, line by line."""
    x, line = 12, 0
    for label in labels:
        width = 24 + 5.2 * len(label)
        if x + width > area.width:
            x, line = 12, line + 1
        yield x, line
        x += width


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
