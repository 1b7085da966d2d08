"""The command `send` against a receiver that records requests.

tests/deployed/test_ops.py sends to the real function.
"""

import json
import re
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from ops import request
from ops.__main__ import main
from ops.signature import DOCUMENTED, SAMPLE_SECRET, SVIX, UNSIGNED, form_of, sign
from source import ROOT

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENTS = ROOT / "events"
SAMPLES = sorted(file.stem for file in EVENTS.glob("*.json"))
WITHOUT_EVENT = ("malformed",)


def signed(got):
    """Returns the form of a request's signature, and whether the signature is valid and new."""
    headers, body, form = got.headers, got.body, form_of(got.headers)
    if form == UNSIGNED:
        return form, False
    time = (
        re.search(r"t=(\d+)", headers["webhook-signature"])[1] if form == DOCUMENTED else headers[f"{form}-timestamp"]
    )
    assert abs(int(time) - datetime.now().timestamp()) < 60
    made = sign(form, SECRET, headers.get(f"{form}-id", ""), int(time), body)
    return form, all(headers[name] == value for name, value in made.items())


@pytest.fixture
def send(receiver, monkeypatch, capsys):
    """Sends to the receiver, and returns the exit status and the output."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)

    def send(*arguments, url=receiver.url):
        with pytest.raises(SystemExit) as ended:
            main(["send", *arguments, *([] if url is None else ["--url", url])])
        printed = capsys.readouterr()
        for text in printed:
            assert all(" " <= character <= "~" for character in text.replace("\n", ""))
            assert SECRET.removeprefix("whsec_") not in text
        return SimpleNamespace(status=ended.value.code, out=printed.out, err=printed.err)

    return send


@pytest.fixture
def refused(send, receiver):
    """Asserts that nothing is sent, and returns the one line with the reason."""

    def refused(*arguments, **options):
        ran = send(*arguments, **options)
        assert (ran.status, ran.out, receiver.got) == (2, "", [])
        assert re.fullmatch(r".* Nothing was sent\.\n", ran.err)
        return ran.err

    return refused


@pytest.fixture
def got(send, receiver):
    """Sends one event, which the receiver accepts, and returns the event as received."""

    def got(*arguments):
        ran = send(*arguments)
        assert (ran.status, ran.err) == (0, "")
        return json.loads(receiver.got[-1].body)

    return got


def file_of(event, headers=None, **changed):
    """Returns the text of a whole request."""
    whole = {"requestContext": {}, "headers": headers or {}, "body": json.dumps(event), "isBase64Encoded": False}
    return json.dumps({name: value for name, value in {**whole, **changed}.items() if value is not None})


@pytest.mark.parametrize("name", SAMPLES)
def test_sends_every_sample_with_a_valid_signature_except_forged_and_unsigned(name, send, receiver):
    form = form_of(json.loads((EVENTS / f"{name}.json").read_text("utf-8"))["headers"])
    for file in (name, f"events/{name}.json"):
        ran = send(file)
        assert (ran.status, ran.err) == (0, "")
        assert signed(receiver.got[-1]) == (form, name not in ("forged", "unsigned"))
        said = {"forged": "signed with Svix headers and a wrong secret", "unsigned": "not signed"}.get(
            name, "signed with "
        )
        assert ran.out.startswith(f"> {file}, ")
        assert said in ran.out.splitlines()[0]
        assert re.fullmatch(r"< 200 alerted, \d+ ms", ran.out.splitlines()[1])


@pytest.mark.parametrize("name", SAMPLES)
def test_signs_a_copy_of_every_sample(name, send, receiver, tmp_path):
    copy = tmp_path / "copy of it.json"
    copy.write_text((EVENTS / f"{name}.json").read_text("utf-8").replace("lead_abc123", "lead_changed"), "utf-8")
    assert send(str(copy)).status == 0
    assert signed(receiver.got[0])[1]


@pytest.mark.parametrize("content", [b"{}", b"[]", b"no JSON", b"\xff\x00\x01", b"{" * 100_000, b'{"eventId":5}', b" "])
def test_sends_a_bare_payload_unchanged(content, send, receiver, tmp_path):
    (tmp_path / "payload").write_bytes(content)
    assert send(str(tmp_path / "payload")).status == 0
    assert (receiver.got[0].body, signed(receiver.got[0])) == (content, (SVIX, True))


def test_a_bare_event_gets_a_new_id_and_the_present_time(got, tmp_path):
    (tmp_path / "event.json").write_bytes(b'\xef\xbb\xbf{"eventId" : "a", "timestamp": "2024-02-24T10:30:00Z"}')
    event = request.read(tmp_path / "event.json").renewed()
    assert re.fullmatch(rb'\xef\xbb\xbf{"eventId" : "evt_\w+", "timestamp": "2\d{3}-[0-9T:.-]+Z"}', event.body)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty"),
        ('{"requestContext": {', "has a requestContext, .* but is not JSON"),
        (file_of({}, body=None), "whose `body` is missing, or is not a text"),
        (file_of({}, body={}), "whose `body` is missing, or is not a text"),
        (file_of({}, body="\ud800"), "has half of a surrogate pair"),
        (file_of({}, headers=[1]), "whose `headers` are missing, or are not an object"),
        (file_of({}, headers={"svix-id": 1}), "whose header svix-id is not a text"),
        (file_of({}, headers={"content-type": "a\nb"}), "whose header content-type is not a text of printable ASCII"),
        (file_of({}, isBase64Encoded="no"), "neither true nor false"),
        (file_of({}, body="%", isBase64Encoded=True), "not base64"),
        ("x" * (request.LARGEST_FILE + 1), "is larger than 16 MiB"),
    ],
)
def test_refuses_a_file_without_an_event(content, why, refused, tmp_path):
    (tmp_path / "event.json").write_text(content)
    assert re.search(rf"event\.json .*{why}", refused(str(tmp_path / "event.json")))


def test_refuses_a_path_without_a_file(refused, tmp_path):
    assert "cannot be read: Is a directory" in refused(str(tmp_path))
    for missing in ("nothing", "events/nothing.json", "", "a\0b", "a" * 5000, "\udcff", "a'b\x1b[2J"):
        assert re.search("no sample and no file .*: forged, .*, unsigned", refused(missing))


def test_an_event_gets_a_new_id_unless_an_id_is_given(got):
    first, second = got("opportunity"), got("opportunity")
    assert first["eventId"] != second["eventId"]
    assert got("opportunity", "--event-id", "evt_1")["eventId"] == "evt_1"
    assert got("opportunity", "--event-id", "keep")["eventId"] == "evt_1708456789123_abc123def"
    assert got("opportunity", "--event-id", 'a"\\\u00fc')["eventId"] == 'a"\\\u00fc'


def test_an_event_without_an_id_gets_only_a_given_id(got, receiver):
    assert "eventId" not in got("opportunity-minimal")
    assert "eventId" not in got("opportunity-minimal")
    one, other = (sent.headers["svix-id"] for sent in receiver.got)
    assert one != other
    assert got("opportunity-minimal", "--event-id", "evt_1")["eventId"] == "evt_1"


def test_options_replace_lead_and_status_in_the_file(got):
    event = got("opportunity", "--lead", "lead_42", "--status", "MEETING_BOOKED")
    assert (event["data"]["leadId"], event["data"]["newStatus"]) == ("lead_42", "MEETING_BOOKED")
    assert event["data"]["previousStatus"] == "REPLY_RECEIVED"
    assert got("opportunity-base64", "--lead", "\u00fc")["data"]["leadId"] == "\u00fc"


def test_an_override_changes_no_other_byte(send, receiver):
    body = json.loads((EVENTS / "opportunity-hostile.json").read_text("utf-8"))["body"]
    given = ("--event-id", "e", "--time", "keep", "--status", "DONE")
    assert send("opportunity-hostile", *given).status == 0
    expected = body.replace("evt_1708456789127_hostile01", "e").replace('"OPPORTUNITY"', '"DONE"')
    assert receiver.got[0].body.decode() == expected


def test_an_override_changes_both_of_two_members_with_one_name():
    event = request.parsed(b'{"data":{},"data" :\t{ "leadId":{"leadId":"}"} , "leadId":"\\"" }}', "event")
    assert event.with_text("data.leadId", "x").body == b'{"data":{},"data" :\t{ "leadId":"x" , "leadId":"x" }}'
    assert request.parsed(b'{"data":{ }}', "event").with_text("data.a", "b").body == b'{"data":{"a":"b" }}'


@pytest.mark.parametrize("option", ["--lead", "--status", "--event-id", "--time"])
@pytest.mark.parametrize("content", ["[]", "no JSON", "{}", '{"data": []}', '{"data": "{"}'])
def test_refuses_an_override_that_the_body_has_no_place_for(option, content, send, receiver, tmp_path):
    (tmp_path / "event").write_text(content)
    value = "2026-11-25T18:00:00Z" if option == "--time" else "x"
    name = {"--lead": "data.leadId", "--status": "data.newStatus", "--event-id": "eventId", "--time": "timestamp"}[
        option
    ]
    ran = send(str(tmp_path / "event"), option, value)
    if content.startswith('{"data') and option in ("--event-id", "--time"):
        assert (ran.status, json.loads(receiver.got[0].body)[name][:1]) == (0, value[:1])
    else:
        assert (ran.status, ran.out, receiver.got) == (2, "", [])
        assert f"{name} cannot be set. Nothing was sent." in ran.err


def test_the_time_is_now_unless_it_is_given(got):
    now = datetime.now(timezone.utc)
    sent = datetime.fromisoformat(got("opportunity")["timestamp"].replace("Z", "+00:00"))
    assert abs(sent - now) < timedelta(seconds=60)
    assert got("opportunity", "--time", "keep")["timestamp"] == "2024-02-24T10:30:00.000Z"
    assert got("opportunity", "--time", "2026-11-25T19:00:00+01:00")["timestamp"] == "2026-11-25T18:00:00.000Z"
    assert "timestamp" not in got("opportunity-minimal")
    assert got("opportunity-minimal", "--time", "2026-11-25T18:00:00Z")["timestamp"] == "2026-11-25T18:00:00.000Z"


@pytest.mark.parametrize("time", ["", "now", "2026-11-25", "2026-11-25T18:00:00", "18:00"])
def test_refuses_an_invalid_time(time, refused):
    assert "is neither `keep` nor a time" in refused("opportunity", "--time", time)


def test_sends_a_body_without_an_event_unchanged(send, receiver):
    for name in WITHOUT_EVENT:
        assert send(name).status == 0
        assert receiver.got[-1].body == json.loads((EVENTS / f"{name}.json").read_text("utf-8"))["body"].encode()


def test_a_burst_sends_new_events_at_once(send, receiver):
    ran = send("opportunity", "--times", "120")
    assert (ran.status, ran.err) == (0, "")
    ids = {json.loads(sent.body)["eventId"] for sent in receiver.got}
    assert (len(receiver.got), len(ids)) == (120, 120)
    assert all(signed(sent) == (SVIX, True) for sent in receiver.got)
    first, *answers, last = ran.out.splitlines()
    assert first.endswith(", 120 times as new events, all on the same lead")
    assert {line.rpartition(" ")[2] for line in answers} == ids
    assert re.fullmatch(r"120 sent in \d+\.\d s: 120 x 200 alerted", last)


def test_sends_an_opportunity_by_default(send, receiver):
    assert send("--event-id", "evt_1").out.startswith("> opportunity, event evt_1, lead lead_abc123, ")


def test_a_burst_sends_one_event_many_times(send, receiver):
    ran = send("opportunity", "--times", "3", "--event-id", "evt_1", "--lead", "lead_1")
    assert len({sent.body for sent in receiver.got}) == 1
    assert "event evt_1, lead lead_1, " in ran.out
    assert ran.out.splitlines()[0].endswith(", 3 times as the same event")


def test_a_bug_ends_a_burst(send, monkeypatch):
    monkeypatch.setattr("ops.request.sign", lambda *_: {}["defect"])
    assert "KeyError: 'defect'. This is a bug in this program" in send("opportunity", "--times", "3").err


def test_a_burst_exits_with_the_status_of_its_worst_event(send, receiver):
    receiver.answer = (503, {}, b'{"outcome":"unavailable","detail":"not yet"}')
    ran = send("opportunity", "--times", "2")
    assert ran.status == 1
    assert ran.out.splitlines()[-2].endswith(": 2 x 503 unavailable")
    assert "AlertsPerSecond paces alerts" in ran.out.splitlines()[-1]


@pytest.mark.parametrize("number", ["0", "-1", "1001", "x", "1.5", "", "9" * 5000, "\u00b2"])
def test_refuses_an_invalid_number_of_events(number, send, receiver):
    ran = send("opportunity", f"--times={number}")
    assert (ran.status, ran.out, receiver.got) == (2, "", [])
    assert "argument --times: " in ran.err


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("whsec_wrong", "it starts with whsec_, but base64 does not follow"),
        ("whsec_c2hvcnQ=", "it starts with whsec_, but fewer than 16 bytes follow"),
        ("short", "it is too short"),
        ("", "it holds no secret"),
        (" \t", "it holds no secret"),
        (f'"{SECRET}"', "it holds a quotation mark"),
        (f"{SECRET} more", "secret number 2 does not start with whsec_"),
        ("\udcff" * 20, "it holds a character outside ASCII"),
    ],
)
@pytest.mark.parametrize("is_local", [False, True])
def test_refuses_an_unusable_secret(secret, why, is_local, refused, receiver, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    monkeypatch.setattr("ops.send.use_local_run", lambda _: receiver.url)
    line = refused("opportunity", url=None if is_local else receiver.url)
    assert f"in WEBHOOK_SECRET (make: SECRET) cannot be used: {why}" in line


def test_the_first_of_several_secrets_signs(send, receiver, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET} {SAMPLE_SECRET}")
    send("opportunity")
    assert signed(receiver.got[0]) == (SVIX, True)


def test_a_given_secret_signs_for_a_local_run_too(send, receiver, monkeypatch):
    monkeypatch.setattr("ops.send.use_local_run", lambda port: receiver.url if port == "8080" else None)
    ran = send("opportunity", "--run", "8080", url=None)
    assert ran.out.splitlines()[0].endswith(", with the secret that you gave")
    assert signed(receiver.got[0]) == (SVIX, True)


@pytest.mark.parametrize(
    "url",
    [
        *("foo", "ftp://a.example/", "javascript:1", "//a.example/", "http://", "http:///path", "http://:80/"),
        *("http://a b/", "http://a.example/\n", "http://a.example:99999/", "http://a.example:x/", "http://[::1"),
        *(
            "http://u:p@a.example/",
            "http://\u00fc.example/",
            "http://.example/",
            f"http://{'a' * 80}.example/",
            "\x1b[2J",
        ),
    ],
)
def test_refuses_an_invalid_url(url, refused):
    assert refused("opportunity", url=url).startswith("The URL ")


def test_reports_a_receiver_that_does_not_listen(send):
    ran = send("opportunity", url="http://127.0.0.1:1/")
    assert (ran.status, ran.err) == (2, "")
    assert re.search(r"< no answer from http://127\.0\.0\.1:1/: .*refused\.\n$", ran.out)


def test_says_that_a_silent_local_run_may_have_ended(send, monkeypatch):
    monkeypatch.setattr("ops.send.use_local_run", lambda _: "http://127.0.0.1:1/")
    ran = send("opportunity", url=None)
    assert (ran.status, "`make run` may have ended." in ran.out) == (2, True)


def test_reports_a_receiver_that_does_not_speak_http(send, receiver, monkeypatch):
    monkeypatch.setattr(
        receiver.RequestHandlerClass, "do_POST", lambda handler: handler.wfile.write(b"220 mail.example ESMTP\r\n")
    )
    ran = send("opportunity")
    assert (ran.status, ran.err) == (2, "")
    assert re.search("< no answer from .*: .*220 mail", ran.out)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_does_not_follow_a_redirect(status, send, receiver):
    receiver.answer = (status, {"location": receiver.url}, b"")
    ran = send("opportunity")
    assert (ran.status, len(receiver.got)) == (1, 1)
    assert f"< {status} (not an answer from the webhook function: " in ran.out


def test_prints_no_control_codes_of_an_answer(send, receiver):
    receiver.answer = (400, {}, b'{"outcome":"\\u001b[2J","reason":"\\u202e","detail":["x"]}\xff')
    assert send("opportunity", "--verbose").status == 1
    receiver.answer = (400, {}, b'{"outcome":"\\u001b[2J","reason":"\\u202e","detail":["x"]}')
    assert send("opportunity", "--verbose").status == 1


def test_prints_bodies_only_with_verbose(send, receiver):
    assert len(send("opportunity").out.splitlines()) == 2
    out = send("opportunity", "--verbose").out
    assert '      "leadId": "lead_abc123",' not in out.splitlines()[0]
    assert '        "leadId": "lead_abc123",' in out
    assert '      "outcome": "alerted"' in out
