"""The command `forget`: which rows it finds, and what it does with each.

tests/deployed/test_forget.py runs it against a deployed stack.
"""

import hashlib
import json
from decimal import Decimal

import pytest

from ops.deliveries import key_part
from ops.errors import Refused
from ops.forget import Forget, event_in, is_about, source
from source import ROOT

NOW = 1_795_000_000_000
LEAD = "lead_1"


class Table:
    """The rows of a table, by key, with the conditions that `forget` relies on."""

    def __init__(self, *rows):
        self.rows = {row["deliveryId"]: row for row in rows}
        self.asked = []

    def matching(self, expression, values):
        self.asked.append((expression, values))
        return list(self.rows.values())

    def delete(self, key):
        self.rows.pop(key, None)

    def delete_lock(self, key, now):
        if self.rows[key]["quietUntil"] > now:
            return False
        return self.rows.pop(key, None) is not None

    def remove_message(self, key, state, now):
        row = self.rows[key]
        if row["state"] != state:
            return False
        removed = ("message", "quiet", "known")
        self.rows[key] = {name: row[name] for name in row if name not in removed} | {"forgottenAt": now}
        return True


def delivery(event="evt_1", state="PUBLISHED", lead=LEAD, kind="alert", workspace="ws_1", **more):
    """Returns a row of a delivery about a lead."""
    text = json.dumps({"id": event, "source": source(workspace), "subject": lead})
    body = json.dumps({"default": text, "email": "Sarah"}) if kind == "alert" else text
    key = f"{key_part(workspace)}#{key_part(event)}#{kind}"
    return {"deliveryId": key, "state": state, "message": {"Message": body}, **more}


def reply(lead=LEAD, workspace="ws_1"):
    return {"deliveryId": f"{key_part(workspace)}#{key_part(lead)}#reply", "reply": "Let's talk", "repliedAt": 1}


def lock(until, lead=LEAD, kind="quiet"):
    return {"deliveryId": f"ws_1#{key_part(lead)}#OPPORTUNITY#{kind}", "holder": "x", "quietUntil": Decimal(until)}


def known_key(lead=LEAD, status="OPPORTUNITY"):
    return f"{hashlib.sha256(lead.encode()).hexdigest()}#{status}#known"


def known(holder, lead=LEAD, status="OPPORTUNITY"):
    return {"deliveryId": known_key(lead, status), "holder": holder, "quietUntil": Decimal(1), "expiresAt": 2}


def missed(lead=LEAD, state="PUBLISHED", workspace=""):
    """Returns the row of an alert of the reconciliation. Its key names neither lead nor workspace."""
    event = f"reconciliation_{hashlib.sha256(f'{lead}#OPPORTUNITY'.encode()).hexdigest()[:32]}"
    lock = {"key": known_key(lead), "at": Decimal(0), "until": Decimal(2)}
    row = delivery(event, state, lead, workspace=workspace, known=lock)
    return {**row, "deliveryId": f"#{event}#alert"}


def forget(table, lead=LEAD, workspace=None, dry_run=False, reconciles=True):
    return Forget(table, lead, workspace, NOW, dry_run, reconciles).run()


def test_deletes_everything_about_the_lead_and_nothing_else(capsys):
    others = [
        *(delivery("evt_9", lead="lead_10"), delivery("lead_1", lead="lead_2"), reply("lead_10"), reply("xlead_1")),
        *(lock(NOW - 1, "lead_2"), {"deliveryId": "1795000000000#slot"}),
        # An event with the lead's id as its own id, and without a readable message.
        {"deliveryId": "ws_2#lead_1#alert", "state": "PUBLISHED", "message": {"Message": "text"}},
    ]
    own = [
        *(delivery(), delivery("evt_2", "DEBOUNCED"), delivery("evt_3", "DISCARDED", kind="status")),
        *(reply(), reply(workspace="ws_2"), reply(workspace=""), lock(NOW), lock(NOW - 1, kind="quiet-tag")),
    ]
    table = Table(*own, *others)
    assert forget(table) == 0
    printed = capsys.readouterr().out
    assert [table.rows[row["deliveryId"]] for row in others] == others
    kept = [row for key, row in table.rows.items() if key not in {row["deliveryId"] for row in others}]
    assert kept == [
        {"deliveryId": "ws_1#evt_1#alert", "state": "PUBLISHED", "forgottenAt": NOW},
        {"deliveryId": "ws_1#evt_2#alert", "state": "DEBOUNCED", "forgottenAt": NOW},
        {"deliveryId": "ws_1#evt_3#status", "state": "DISCARDED", "forgottenAt": NOW},
    ]
    assert "emptied       ws_1#evt_1#alert: the row stays without its message" in printed
    assert "deleted       ws_2#lead_1#reply: the lead's last reply\n" in printed
    assert "\n5 rows were deleted. 3 deliveries lost their message.\n" in printed
    assert printed.endswith("and the table's backups (up to 35 days).\n")
    assert "Sarah" not in printed and "talk" not in printed


def test_a_second_run_finds_nothing(capsys):
    table = Table(delivery(quiet="ws_1#lead_1#OPPORTUNITY#quiet"), reply())
    assert forget(table) == 0
    capsys.readouterr()
    assert forget(table) == 0
    assert capsys.readouterr().out.startswith("The table stores nothing about the lead lead_1.\n")


def test_keeps_what_is_still_needed_and_reports_it(capsys):
    rows = [
        *(delivery(state="PENDING"), delivery("evt_2", state="SENT"), lock(NOW + 1)),
        {**lock(NOW, kind="quiet-tag"), "quietUntil": "soon"},
    ]
    table = Table(*rows)
    assert forget(table) == 1
    assert list(table.rows.values()) == rows
    printed = capsys.readouterr().out
    assert "kept          ws_1#evt_1#alert: pending, because the message is still to be published\n" in printed
    assert "kept          ws_1#evt_2#alert: its state is SENT, which this version does not know\n" in printed
    assert "kept          ws_1#lead_1#OPPORTUNITY#quiet: the debounce lock suppresses alerts until 2026-11-1" in printed
    assert "the debounce lock does not say when it ends\n" in printed
    assert "\n4 rows still name the lead.\nRun the command again after " in printed


def test_reports_a_row_that_changed_meanwhile(capsys):
    table = Table(delivery(), lock(NOW))
    found = table.matching("", {})
    table.rows = {row["deliveryId"]: {**row, "state": "PENDING", "quietUntil": NOW + 1} for row in found}
    table.matching = lambda *_: found
    assert forget(table) == 1
    printed = capsys.readouterr().out
    assert "its state has just changed" in printed
    assert "another alert has just taken the debounce lock" in printed


def test_a_dry_run_changes_nothing(capsys):
    rows = [delivery(), reply(), lock(NOW), lock(NOW + 1, kind="quiet-tag")]
    table = Table(*rows)
    assert forget(table, dry_run=True) == 1
    assert list(table.rows.values()) == rows
    printed = capsys.readouterr().out
    assert printed.count("would delete  ") == 2
    assert "2 rows would be deleted. 1 delivery would lose its message. 1 row would still name the lead.\n" in printed
    assert printed.endswith("Nothing was changed, because this was a dry run.\n")


def test_deletes_only_from_the_given_workspace(capsys):
    hashed = {**delivery("evt_3", workspace="ws_2"), "deliveryId": "%sha256:ab#alert"}
    table = Table(delivery(), delivery("evt_2", workspace="ws_2"), hashed, reply(), reply(workspace="ws_2"))
    assert forget(table, workspace="ws_2") == 0
    assert table.rows.keys() == {"ws_1#evt_1#alert", "ws_2#evt_2#alert", "%sha256:ab#alert", "ws_1#lead_1#reply"}
    assert {key for key, row in table.rows.items() if "message" in row} == {"ws_1#evt_1#alert"}
    capsys.readouterr()
    forget(table, workspace="ws_3")
    assert "nothing about the lead lead_1 in the workspace ws_3.\n" in capsys.readouterr().out


@pytest.mark.parametrize("lead", ["lead#1", "lead%231", 'a"b', "l\u00e9ad", "x" * 300])
def test_finds_an_unusual_id(lead):
    table = Table(delivery(lead=lead), reply(lead), lock(NOW, lead))
    assert forget(table, lead) == 0
    assert [row.keys() for row in table.rows.values()] == [{"deliveryId", "state", "forgottenAt"}]
    (_, values), *_ = table.asked
    assert values[":key"] == key_part(lead) and values[":text"] in lead


def test_finds_an_unreadable_message_by_the_debounce_key():
    row = {**delivery(quiet="ws_1#lead_1#OPPORTUNITY#quiet"), "message": {"Message": "{"}}
    assert is_about(row, LEAD) and not is_about(row, "OPPORTUNITY")
    assert event_in({"deliveryId": "ws#evt#status", "message": {"Message": "[]"}}) == {}


def test_refuses_an_id_that_could_match_every_row():
    with pytest.raises(Refused):
        forget(Table(), '"\\')


@pytest.mark.parametrize(
    ("workspace", "expected"),
    [("", "urn:sendpilot:workspace"), ("ws_a-b.c~d e", "urn:sendpilot:workspace:ws_a-b.c~d%20e")],
)
def test_writes_a_source_as_the_function_does(workspace, expected):
    assert source(workspace) == expected


def test_after_it_the_reconciliation_knows_the_lead_by_a_hash_only(capsys):
    late = delivery(state="DEBOUNCED", debouncedBy=missed()["deliveryId"], known={"key": known_key()})
    others = [missed("lead_10"), known("reconciliation#baseline", "lead_10"), known("x", "xlead_1")]
    own = [known(missed()["deliveryId"]), known("ws_1#evt_2#alert", status="DONE")]
    table = Table(missed(), late, *own, *others)
    assert forget(table) == 0
    left = [row for row in table.rows.values() if row not in others]
    assert left == [
        {"deliveryId": missed()["deliveryId"], "state": "PUBLISHED", "forgottenAt": NOW},
        {
            "deliveryId": "ws_1#evt_1#alert",
            "state": "DEBOUNCED",
            "forgottenAt": NOW,
            "debouncedBy": left[0]["deliveryId"],
        },
        *own,
    ]
    assert LEAD not in json.dumps(left, default=str)
    assert list(table.rows.values())[-3:] == others
    printed = capsys.readouterr().out
    assert f"emptied       {missed()['deliveryId']}: the row stays without its message" in printed
    assert f"stays         {known_key()}: the lead is known to the reconciliation\n" in printed
    assert "\n2 deliveries lost their message. 2 rows stay with only a hash.\nBy the hash of the lead's id, " in printed
    assert forget(table) == 0
    printed = capsys.readouterr().out
    assert "\n2 rows stay with only a hash.\n" in printed and "emptied" not in printed


def test_deletes_a_known_lead_if_the_reconciliation_is_off(capsys):
    table = Table(known(missed()["deliveryId"]), known("reconciliation#baseline", status="DONE"))
    assert forget(table, reconciles=False, dry_run=True) == 0
    assert len(table.rows) == 2
    assert "2 rows would be deleted.\n" in capsys.readouterr().out
    assert forget(table, reconciles=False) == 0
    assert table.rows == {}
    printed = capsys.readouterr().out
    assert f"deleted       {known_key()}: the lead is known, but the reconciliation is off\n" in printed
    assert "the hash" not in printed


def test_a_dry_run_keeps_a_known_lead(capsys):
    table = Table(known("ws_1#evt_1#alert"))
    assert forget(table, dry_run=True) == 0
    assert table.rows == {known_key(): known("ws_1#evt_1#alert")}
    printed = capsys.readouterr().out
    assert printed.startswith(f"would stay    {known_key()}: ") and "\n1 row would stay with only a hash.\n" in printed


def test_a_pending_alert_of_the_reconciliation_stays(capsys):
    rows = [missed(state="PENDING"), known(missed()["deliveryId"])]
    table = Table(*rows)
    assert forget(table) == 1
    assert list(table.rows.values()) == rows
    assert "\n1 row stays with only a hash. 1 row still names the lead.\n" in capsys.readouterr().out


def test_finds_the_workspace_of_an_alert_of_the_reconciliation_in_its_message(capsys):
    table = Table(missed(workspace="ws_1"), known("x"), delivery(workspace=""), reply(workspace=""))
    assert forget(table, workspace="ws_1") == 0
    assert [key for key, row in table.rows.items() if "forgottenAt" in row] == [missed()["deliveryId"]]
    assert forget(table, workspace="") == 0
    assert {key for key, row in table.rows.items() if "forgottenAt" in row} == {missed()["deliveryId"], "#evt_1#alert"}
    assert "#lead_1#reply" not in table.rows


def test_finds_an_unreadable_message_by_the_key_of_the_known_lead():
    row = {**delivery(known={"key": known_key()}), "message": {"Message": "{"}}
    assert is_about(row, LEAD) and not is_about(row, "lead_10") and not is_about({**row, "known": "x"}, LEAD)


def test_writes_the_key_of_a_known_lead_as_the_function_does():
    keys = (ROOT / "src" / "message" / "key.rs").read_text("utf-8")
    assert 'row_key(&[&sha256_hex(lead_id.as_bytes()), &status.to_ascii_uppercase()], "known")' in keys
    table = Table()
    forget(table, "l\u00e9ad")
    assert table.asked[0][1][":known"] == known_key("l\u00e9ad").partition("OPPORTUNITY")[0]
