"""Calculates the price of an alert and of a month, and the time to an alert, by the memory of the webhook function.

Without arguments, it writes its tables into docs/cost.md and docs/scaling.md, between the comments that name them. With
--check, it only compares the tables. Both fail if the price of a small stack exceeds its goal. The assumptions come
first: replace them by your own numbers, and run it again.
"""

import re
import sys
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COST, SCALING, TEMPLATE = ROOT / "docs" / "cost.md", ROOT / "docs" / "scaling.md", ROOT / "template.yaml"

# List prices in us-east-1, in US dollars, as of 2025, without any free tier. They change:
# https://aws.amazon.com/pricing
MILLION = 1_000_000
GATEWAY_REQUEST = 1.00 / MILLION
LAMBDA_REQUEST = 0.20 / MILLION
GB_SECOND = {"arm64": 0.0000133334, "x86_64": 0.0000166667}
WRITE_UNIT, READ_UNIT, TABLE_GB, BACKUP_GB = 0.625 / MILLION, 0.125 / MILLION, 0.25, 0.20
PUBLISH, CHAT, EMAIL = 0.50 / MILLION, 0.60 / MILLION, 2.00 / 100_000
# To SQS and Lambda, a standard topic delivers free of charge.
FIFO_PUBLISH, FIFO_PUBLISH_GB, FIFO_DELIVERY, FIFO_DELIVERY_GB = 0.30 / MILLION, 0.017, 0.01 / MILLION, 0.001
LOG_GB, KEPT_LOG_GB = 0.50, 0.03
LOGS_KEPT = 0.15  # the share of a log that compression leaves
QUERIED_LOG_GB = 0.005  # Logs Insights, for each GB that a query scans
DATA_OUT_GB = 0.09
METRIC, ALARM, SECRET, DASHBOARD, KEY = 0.30, 0.10, 0.40, 3.00, 1.00
SECRET_READ, KEY_REQUEST, SCHEDULE = 0.05 / 10_000, 0.03 / 10_000, 1.00 / MILLION

# CloudWatch bills an alarm for each metric that it reads, so one on metric math costs more
# (https://aws.amazon.com/cloudwatch/pricing: "per alarm metric").
ALARM_METRICS, STREAM_ALARM_METRICS = 14, 8
RECONCILE_ALARM_METRICS = 3
SILENCE = METRIC + ALARM  # a metric filter's metric, and the alarm that reads it

# With DetailedMetrics: 10 statuses, 7 reasons and the time to alert. With steady traffic, the
# reasons are rare, and so is one of the statuses.
DETAILED_METRICS, HOURLY_METRICS = 18, 10
DASHBOARD_QUERIES = 4  # of the webhook function's log, without DetailedMetrics

# The highest prices of a month, for a stack without traffic and for one with 10 thousand events.
IDLE_GOAL, SMALL_GOAL = 2.00, 3.00

# Measured by `make bench`: milliseconds of one whole vCPU, which is what 1,769 MB buy.
VCPU = 1769
CPU_IGNORED, CPU_STREAMED = 0.04, 0.33
CPU_ALERT = 0.44  # without a pace 0.33; in one run of the bench, the slot multiplied it by 1.33
CPU_COLD = 5.3  # from the start of the process to the end of its first alert

# Assumed: milliseconds, inside a region.
CALL = 5  # to DynamoDB, SNS or Secrets Manager
CONNECT = 2  # TCP and TLS; to all three at once
LAMBDA = 1  # what Lambda itself adds to an invocation

# Assumed of an event and of a month.
QUERIED = 1.6  # kB in the webhook function's log: its own line of 0.3, measured, and Lambda's lines
LOGGED = QUERIED + 0.6  # kB: the gateway's line too
DETAILED_LOGGED = 0.3  # kB: the longer line of a change of status with DetailedMetrics
ANSWERED = 0.5  # kB
# Write units: claim and completion take 3 for the row and 1 for the index each, a slot takes 1.
# The row is in kB.
WRITES, ROW = 9, 3
STREAM_WRITES, STREAM_ROW = 6, 2  # the same of a message to the lead status stream: 2 for its row
STREAMED = 1  # kB: the message and its attributes
LOCK_WRITES = 1  # the row of a debounce lock, of less than 1 kB
# Of an alert with details, and of a reply that is remembered for 90 days.
API = 300  # milliseconds of waiting for SendPilot's API
API_OUT = 1  # kB to SendPilot's API
REPLY, REPLY_MONTHS = 1, 3  # kB of the reply's row, and months
# Of a run of the reconciliation. Each campaign has the same number of leads in an alert status.
CAMPAIGNS, RECONCILED = 10, 500
RUN_REQUESTS = 1 + CAMPAIGNS  # to SendPilot: a page of campaigns, and a page of leads for each
# A BatchGetItem for each page of leads. Each lead takes a strongly consistent read unit.
RUN_READS = CAMPAIGNS
RUN_WRITES = 2  # of the run's own row: the begin and the end
RUN_LOGGED = 0.9  # kB: as a run of the redrive
KNOWN_ROW, KNOWN_MONTHS = 0.25, 400 / 30  # kB of a known lead's row, and months
COLD = 0.02  # the share of events that start a process
MINUTES = 43_200
VIEWS, VIEWED = 30, 7 / 30  # views of the dashboard in a month; each shows a week


class Function:
    """The webhook function with a given memory in MB: its durations in milliseconds, and their price."""

    def __init__(self, memory, architecture="arm64"):
        # One thread cannot use more than one vCPU.
        self.gb, self.share = memory / 1024, min(1, memory / VCPU)
        self.second = self.gb * GB_SECOND[architecture]
        self.ignored = LAMBDA + CPU_IGNORED / self.share
        self.streamed = LAMBDA + 3 * CALL + CPU_STREAMED / self.share
        # Alone in its second, an alert does not wait for its slot.
        self.warm = LAMBDA + 4 * CALL + CPU_ALERT / self.share
        # A cold start reads the two versions of the secret first, and connects meanwhile.
        self.cold = LAMBDA + CONNECT + 6 * CALL + CPU_COLD / self.share

    def billed(self, opportunities):
        """Returns the billed milliseconds of an average event. Lambda bills each started millisecond."""
        warm, ignored, cold = ceil(self.warm), ceil(self.ignored), ceil(self.cold)
        return opportunities * warm + (1 - opportunities) * ignored + COLD * (cold - warm)

    def price(self, milliseconds):
        return LAMBDA_REQUEST + milliseconds / 1000 * self.second


def gb(kilobytes):
    return kilobytes / MILLION


def cents(dollars):
    """Returns dollars with two decimals. Half a cent is rounded up, although its binary number is a little less."""
    return f"{dollars + 1e-9:.2f}"


def view(events):
    """Returns the price of one view of the dashboard, which queries the log, at this number of events a month."""
    return DASHBOARD_QUERIES * gb(QUERIED) * events * VIEWED * QUERIED_LOG_GB


MONTHS = (10_000, MILLION, 100 * MILLION)  # events
LOGS = gb(LOGGED) * (LOG_GB + LOGS_KEPT * KEPT_LOG_GB)
DATA_OUT = gb(ANSWERED) * DATA_OUT_GB
DELIVERY = WRITES * WRITE_UNIT + gb(ROW) * (TABLE_GB + BACKUP_GB)
STREAM_DELIVERY = STREAM_WRITES * WRITE_UNIT + gb(STREAM_ROW) * (TABLE_GB + BACKUP_GB)


REMEMBERED = WRITE_UNIT + REPLY_MONTHS * gb(REPLY) * (TABLE_GB + BACKUP_GB)


def default_memory():
    return int(
        re.search(r"^Globals:\n(?: .*\n|\n)*?    MemorySize: (\d+)$", TEMPLATE.read_text("utf-8"), re.MULTILINE)[1]
    )


def by_memory():
    """Yields the table of durations and prices by memory, if one event in twenty is an opportunity."""
    opportunities = 0.05
    others = GATEWAY_REQUEST + LOGS + DATA_OUT + opportunities * (DELIVERY + PUBLISH + CHAT + EMAIL)
    yield (
        "MB",
        "of a vCPU",
        "event ignored",
        "alert, warm",
        "alert, cold",
        "Lambda, arm64",
        "Lambda, x86_64",
        "all of AWS",
    )
    for memory in (128, 256, 512, 1024, VCPU):
        arm64, x86_64 = Function(memory), Function(memory, "x86_64")
        yield (
            f"**{memory:,}**" if memory == default_memory() else f"{memory:,}",
            f"{arm64.share:.0%}",
            *(f"{milliseconds:.1f} ms" for milliseconds in (arm64.ignored, arm64.warm, arm64.cold)),
            *(f"{function.price(function.billed(opportunities)) * MILLION:.3f}" for function in (arm64, x86_64)),
            cents((others + arm64.price(arm64.billed(opportunities))) * MILLION),
        )


def of_an_alert():
    """Yields the table of the price of a million alerts, by its parts."""
    function = Function(default_memory())
    warm, cold = (function.price(ceil(milliseconds)) for milliseconds in (function.warm, function.cold))
    parts = {
        "SNS: email to one address": EMAIL,
        f"DynamoDB: {WRITES} write units, {ROW} kB for a month and its backup": DELIVERY,
        f"CloudWatch Logs: {LOGGED:.1f} kB": LOGS,
        "SNS: publish, and one chat channel": PUBLISH + CHAT,
        f"API Gateway, and {ANSWERED} kB out": GATEWAY_REQUEST + DATA_OUT,
        f"Lambda, warm (cold: {cents(cold * MILLION)})": warm,
    }
    whole = sum(parts.values())
    yield "a million alerts", "US dollars", "share"
    for part, price in parts.items():
        yield part, cents(price * MILLION), f"{price / whole:.1%}"
    yield "**in all**", f"**{cents(whole * MILLION)}**", ""


def a_month():
    """Returns the prices of a month by their lines, by traffic and fixed, for each number of events.

    One event in fifty is an opportunity.
    """
    opportunities, months = 0.02, MONTHS
    function, five_minutes = Function(default_memory()), MINUTES / 5
    billed = function.billed(opportunities)

    def each(price):
        return [price * events for events in months]

    traffic = {
        ("API Gateway", "a request at 1.00 per million"): each(GATEWAY_REQUEST),
        (
            "Lambda",
            f"a request at 0.20 per million, {billed:.1f} ms on average of {function.gb:g} GB at "
            f"{GB_SECOND['arm64']:.10f} per GB-second",
        ): each(function.price(billed)),
        (
            "CloudWatch Logs",
            f"{LOGGED:.1f} kB at {LOG_GB:.2f} per GB, and {100 * LOGS_KEPT:.0f} % of that for a month at {KEPT_LOG_GB}",
        ): each(LOGS),
        (
            "DynamoDB",
            f"{100 * opportunities:.0f} % × ({WRITES} writes at 0.625 per million: claim and completion take 3 for the "
            f"row and 1 for the index each, a slot 1. And {ROW} kB for a month at {TABLE_GB}, "
            f"and {BACKUP_GB:.2f} for its backup)",
        ): each(opportunities * DELIVERY),
        (
            "SNS",
            f"{100 * opportunities:.0f} % × (0.50 and 0.60 per million for publish and chat, 2.00 per 100,000 "
            "for email)",
        ): each(opportunities * (PUBLISH + CHAT + EMAIL)),
        ("Data out", f"{ANSWERED} kB at {DATA_OUT_GB} per GB"): each(DATA_OUT),
        (
            "Dashboard",
            f"{VIEWS} views of a week, {DASHBOARD_QUERIES} queries each of {QUERIED} kB at {QUERIED_LOG_GB} per GB",
        ): [VIEWS * view(events) for events in months],
        ("Secret, reads", "2 every 5 minutes for each process, of which there are 1, 1 and 10, at 0.05 per 10,000"): [
            2 * five_minutes * processes * SECRET_READ for processes in (1, 1, 10)
        ],
        (
            "KMS",
            "a request every 5 minutes for the table and 2 for the topic, at 0.03 per 10,000; but at most 3 an alert",
        ): [3 * min(five_minutes, opportunities * events) * KEY_REQUEST for events in months],
    }
    runs = [LAMBDA_REQUEST, 0.020 * GB_SECOND["arm64"], 8 * READ_UNIT / 2, SCHEDULE, gb(0.9) * LOG_GB, KEY_REQUEST / 5]
    request, memory, reads, schedule, logs, key = (MINUTES * price for price in runs)
    fixed = {
        ("Alarms", f"{ALARM_METRICS} metrics × {ALARM:.2f}"): [ALARM_METRICS * ALARM] * 3,
        ("Secret", ""): [SECRET] * 3,
        (
            "Redrive",
            f"{MINUTES:,} runs: {request:.2f} requests, {memory:.2f} for 20 ms of 1 GB, {reads:.2f} for 8 reads, "
            f"{schedule:.2f} schedule, {logs:.2f} logs, {key:.2f} KMS",
        ): [MINUTES * sum(runs)] * 3,
    }
    return {"By traffic": traffic, "Fixed": fixed}


def sums(lines):
    return [sum(column) for column in zip(*lines.values())]


def of_a_month():
    """Yields the table of a month's price by its lines."""
    yield "", "each event", "10 thousand", "1 million", "100 million"
    parts = a_month()
    for name, lines in parts.items():
        for line, prices in lines.items():
            yield *line, *map(cents, prices)
        yield f"**{name}**", "", *(f"**{cents(price)}**" for price in sums(lines))
    yield "**In all**", "", *(f"**{cents(sum(column))}**" for column in zip(*map(sums, parts.values())))


def in_short():
    """Yields the table of a month's price."""
    traffic, fixed = map(sums, a_month().values())
    yield "events in a month", "none", "10 thousand", "1 million", "100 million"
    yield "US dollars", cents(fixed[0]), *(cents(sum(column)) for column in zip(traffic, fixed))


def options():
    """Yields the table of the options that cost something."""
    stream, metrics = cents(STREAM_ALARM_METRICS * ALARM), cents(DETAILED_METRICS * METRIC)
    yield "option", "US dollars a month"
    yield "`SilenceHours`", f"for a metric and an alarm: {cents(SILENCE)}"
    yield "`RememberReplies`", "for [each reply and each alert](#the-details-of-a-lead)"
    yield (
        "`LeadDetails`",
        f"for a secret and an alarm: {cents(SECRET + ALARM)}; and [each alert](#the-details-of-a-lead). With "
        f"`SendPilotApiKeyArn`, the alarm alone: {cents(ALARM)}",
    )
    yield (
        "`ReconcileMinutes`",
        f"for alarms on {RECONCILE_ALARM_METRICS} metrics: {cents(RECONCILE_ALARM_METRICS * ALARM)}; and [each run and "
        "alert](#the-reconciliation); and as `LeadDetails`, which it turns on",
    )
    yield (
        "`StatusStream`",
        f"for alarms on {STREAM_ALARM_METRICS} metrics: {stream}; and [each change](#the-lead-status-stream)",
    )
    yield (
        "`DetailedMetrics`",
        f"for up to {DETAILED_METRICS} metrics: {metrics}; and {DETAILED_LOGGED} kB more log for a change of status; "
        "but [no queries](#log-or-metrics)",
    )
    yield "`EncryptionKeyArn`", f"for the key: {cents(KEY)}; and requests as in the row KMS"
    yield (
        "`MakeDashboard`",
        f"none for the account's first three dashboards of up to 50 metrics; for each other one {cents(DASHBOARD)}",
    )


def log_or_metrics():
    """Yields the table of the views from which the detailed metrics are cheaper than queries of the log."""
    yield "events in a month", "GB that a view reads", "US dollars a view", "`yes` is cheaper from this number of views"
    for events, name in zip(MONTHS, ("10 thousand", "1 million", "100 million")):
        read = DASHBOARD_QUERIES * gb(QUERIED) * events * VIEWED
        metrics = HOURLY_METRICS * METRIC + gb(DETAILED_LOGGED) * events * (LOG_GB + LOGS_KEPT * KEPT_LOG_GB)
        yield name, f"{read:,.2f}", f"{view(events):.4f}", f"{ceil(metrics / view(events)):,}"


def goals():
    """Returns why a small stack is too expensive, or None."""
    traffic, fixed = map(sums, a_month().values())
    for name, price, goal in (("without traffic", fixed[0], IDLE_GOAL), ("small", traffic[0] + fixed[0], SMALL_GOAL)):
        if price > goal:
            return f"a stack that is {name} costs {cents(price)} dollars a month; the goal is {cents(goal)}"
    return None


def of_the_stream():
    """Yields the table of the price of a million changes of status without an alert, by the kind of the stream."""
    function = Function(default_memory())
    ignored, streamed = (function.price(ceil(milliseconds)) for milliseconds in (function.ignored, function.streamed))
    publish = [0, PUBLISH, FIFO_PUBLISH + gb(STREAMED) * FIFO_PUBLISH_GB]
    delivery = [0, 0, FIFO_DELIVERY + gb(STREAMED) * FIFO_DELIVERY_GB]
    parts = {
        f"API Gateway, CloudWatch Logs, and {ANSWERED} kB out": [GATEWAY_REQUEST + LOGS + DATA_OUT] * 3,
        "Lambda": [ignored, streamed, streamed],
        f"DynamoDB: {STREAM_WRITES} write units, {STREAM_ROW} kB for a month and its backup": [
            0,
            STREAM_DELIVERY,
            STREAM_DELIVERY,
        ],
        f"SNS: publish, {STREAMED} kB": publish,
        "SNS: to a queue": delivery,
    }
    yield "a million changes of status", "off", "standard", "fifo"
    for part, prices in parts.items():
        yield part, *(cents(price * MILLION) for price in prices)
    yield "**in all**", *(f"**{cents(sum(column) * MILLION)}**" for column in zip(*parts.values()))


def stream():
    """Returns the table of the stream, and the text below it."""
    alert = cents((DELIVERY + PUBLISH + CHAT + EMAIL) * MILLION)
    alarms = cents(STREAM_ALARM_METRICS * ALARM)
    slot, debounced = cents(WRITE_UNIT * MILLION), cents(LOCK_WRITES * WRITE_UNIT * MILLION)
    return (
        f"{markdown(of_the_stream())}\n"
        "With the stream off, a change that needs no alert makes no call to AWS. With the stream on, it\n"
        "makes three: claim, publish, complete. A duplicate makes one. If an alert is due as well, a\n"
        f"million of both are {alert} more, and four calls more at the same time.\n"
        "\n"
        f"With `AlertsPerSecond=0`, an alert is one call and 1 write unit less, {slot} for a million. With\n"
        f"`DebounceMinutes`, an alert is one call and {LOCK_WRITES} write unit more, {debounced} for a million.\n"
        "\n"
        f"The {STREAM_ALARM_METRICS} metrics that the stream's alarms read are {alarms} a month. The metric of the\n"
        f"stream's pending age, {cents(METRIC)} at most, comes only while messages wait for the redrive. A queue's\n"
        "requests come on top.\n"
    )


def of_the_details():
    """Yields the table of what the details add to the price of a million alerts, and of a million replies."""
    function = Function(default_memory())
    waiting = API / 1000 * function.second
    # A reply is an ignored event with one more call.
    writing = function.price(ceil(function.ignored + CALL)) - function.price(ceil(function.ignored))
    yield "a million", "US dollars", "option"
    yield f"alerts: {API} ms more of Lambda", cents(waiting * MILLION), "`LeadDetails`"
    yield f"alerts: {API_OUT} kB out to SendPilot's API", cents(gb(API_OUT) * DATA_OUT_GB * MILLION), "`LeadDetails`"
    yield "alerts: a read unit of DynamoDB", cents(READ_UNIT * MILLION), "`RememberReplies`"
    yield (
        f"replies: a write unit, {REPLY} kB for {REPLY_MONTHS} months and its backup, and Lambda",
        cents((REMEMBERED + writing) * MILLION),
        "`RememberReplies`",
    )


def of_a_run():
    """Returns the prices of a run of the reconciliation by their parts."""
    milliseconds = LAMBDA + RUN_REQUESTS * API + (RUN_READS + RUN_WRITES) * CALL
    return {
        f"DynamoDB: {RECONCILED} read units": RECONCILED * READ_UNIT,
        f"Lambda: {milliseconds / 1000:.1f} s": Function(default_memory()).price(milliseconds),
        "Secrets Manager: a read of the API key": SECRET_READ,
        "KMS: a request for the table": KEY_REQUEST,
        f"DynamoDB: {RUN_WRITES} write units": RUN_WRITES * WRITE_UNIT,
        "EventBridge Scheduler": SCHEDULE,
        f"Data out: {RUN_REQUESTS * API_OUT} kB": gb(RUN_REQUESTS * API_OUT) * DATA_OUT_GB,
        f"CloudWatch Logs: {RUN_LOGGED} kB": gb(RUN_LOGGED) * LOG_GB,
    }


def of_the_reconciliation():
    """Yields the table of the price of a million runs, and of a month with a run every hour."""
    parts, hourly = of_a_run(), MINUTES // 60
    yield "part of a run", "a million runs", f"a month of {hourly} runs"
    for part, price in parts.items():
        yield part, cents(price * MILLION), cents(price * hourly)
    whole = sum(parts.values())
    yield "**in all**", f"**{cents(whole * MILLION)}**", f"**{cents(whole * hourly)}**"


def reconciliation():
    """Returns the table of the reconciliation, and the text below it."""
    known = WRITE_UNIT + KNOWN_MONTHS * gb(KNOWN_ROW) * (TABLE_GB + BACKUP_GB)
    often = sum(of_a_run().values()) * MINUTES / 5
    rows, writes = cents(known * MILLION), cents(WRITE_UNIT * MILLION)
    metrics, alarms = RECONCILE_ALARM_METRICS, cents(RECONCILE_ALARM_METRICS * ALARM)
    return (
        f"{markdown(of_the_reconciliation())}\n"
        f"A run every 5 minutes is {cents(often)} a month. The {metrics} metrics that the alarms read are "
        f"{alarms}.\n"
        "\n"
        f"Each alert makes its lead known, with one call and 1 write unit more. The row has about {KNOWN_ROW} kB,\n"
        f"and stays for 400 days. For a million alerts, this is {rows}, {writes} of it for the writes.\n"
    )


def flood():
    """Returns the sentence on the price of a flood."""
    function = Function(default_memory())
    price = GATEWAY_REQUEST + LOGS + DATA_OUT + function.price(ceil(function.ignored))
    return (
        "- A flood of forged requests at the gateway's limit, 200 a second, costs "
        f"{cents(200 * 3600 * price)} an hour.\n"
    )


def markdown(rows):
    head, *body = rows
    # A column of numbers is aligned to the right.
    ruler = ["---:" if re.match(r"\**[\d.,]+", cell) else "---" for cell in body[0]]
    lines = [f"| {' | '.join(row)} |" for row in (head, *body)]
    return "\n".join([lines[0], f"|{'|'.join(ruler)}|", *lines[1:]]).replace("|  |", "| |") + "\n"


TABLES = {
    COST: {
        "in short": lambda: markdown(in_short()),
        "a month": lambda: markdown(of_a_month()),
        "a flood": flood,
        "options": lambda: markdown(options()),
        "log or metrics": lambda: markdown(log_or_metrics()),
        "the details": lambda: markdown(of_the_details()),
        "the reconciliation": reconciliation,
        "the stream": stream,
    },
    SCALING: {"memory": lambda: markdown(by_memory()), "an alert": lambda: markdown(of_an_alert())},
}


def written(text, tables):
    for name, table in tables.items():
        between = re.compile(rf"(<!-- price\.py: {name} -->\n).*?(<!-- end -->\n)", re.DOTALL)
        if len(found := between.findall(text)) != 1:
            sys.exit(f"there must be one place for the prices of {name}, and there are {len(found)}")
        text = between.sub(rf"\g<1>{table()}\g<2>", text)
    return text


def main():
    if too_expensive := goals():
        sys.exit(too_expensive)
    for file, tables in TABLES.items():
        text = file.read_text("utf-8")
        priced = written(text, tables)
        if "--check" not in sys.argv:
            file.write_text(priced, "utf-8")
        elif text != priced:
            sys.exit(f"{file.name} has other prices than tools/docs/price.py: run `make prices`")


if __name__ == "__main__":
    main()
