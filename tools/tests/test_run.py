"""A local run passes only webhook requests on, and the tools find the run."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from local_aws import run as run_module
from local_aws.front import PATH
from local_aws.progress import Failed
from local_aws.run import Run
from ops import request, running
from ops.errors import Refused
from ops.running import ADDRESSES


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """The folder of all runs."""
    folder = tmp_path / "runs"
    for module in (running, run_module):
        monkeypatch.setattr(module, "RUNS", folder)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return folder


def test_passes_a_request_and_its_answer_on_unchanged(receiver):
    receiver.answer = (
        503,
        {"retry-after": "7", "content-type": "application/problem+json"},
        b'{"outcome": "unavailable"}',
    )
    body = b'\xff{"a":  1}\r\n'
    with Run() as local:
        local.front.target = receiver.url
        answer = request.exchange("POST", local.front.url, body, {"svix-id": "msg_1", "User-Agent": "Svix"})
    [got] = receiver.got
    assert (got.path, got.body, got.headers["svix-id"], got.headers["user-agent"]) == (PATH, body, "msg_1", "Svix")
    assert (answer.status, answer.headers["retry-after"], answer.outcome()) == (503, "7", "unavailable")


def test_drops_headers_that_could_control_the_local_aws(receiver):
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 ...",
        "X-Amz-Target": "AWSLambda",
        "Host": "lambda.us-east-1",
        "svix-id": "1",
    }
    with Run() as local:
        local.front.target = receiver.url
        request.exchange("POST", local.front.url, b"{}", headers)
    [got] = receiver.got
    assert got.headers["svix-id"] == "1"
    assert not {"authorization", "x-amz-target"} & got.headers.keys()
    assert got.headers["host"] == f"127.0.0.1:{receiver.server_port}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/webhooks/sendpilot"),
        ("POST", "/"),
        ("POST", "/_aws/execute-api/1/webhooks/sendpilot"),
        ("POST", "/webhooks/sendpilot/.."),
        ("POST", "/webhooks/sendpilot//"),
        ("PUT", "/2015-03-31/functions"),
    ],
)
def test_passes_only_webhook_requests_on(method, path, receiver):
    with Run() as local:
        local.front.target = receiver.url
        answer = request.exchange(method, f"http://127.0.0.1:{local.front.port}{path}", b"{}")
    assert answer.status == 404
    assert receiver.got == []


def test_refuses_a_larger_body_than_api_gateway_does(receiver):
    with Run() as local:
        local.front.target = receiver.url
        url = local.front.url
        assert request.exchange("POST", url, b" " * (10 * 1024 * 1024)).status == 200
        assert request.exchange("POST", url, b" " * (10 * 1024 * 1024 + 1)).status == 413


def test_a_body_in_chunks_arrives_whole(receiver):
    with Run() as local:
        local.front.target = receiver.url
        assert (
            request.exchange("POST", local.front.url, iter([b"{", b"}"]), {"transfer-encoding": "chunked"}).status
            == 200
        )
    assert [got.body for got in receiver.got] == [b"{}"]


def test_answers_503_before_the_deployment_and_502_after_the_end_of_the_local_aws(receiver):
    with Run() as local:
        assert request.exchange("POST", local.front.url, b"{}").status == 503
        local.front.target = "http://127.0.0.1:1/"
        assert request.exchange("POST", local.front.url, b"{}").status == 502


def test_refuses_a_used_port_by_its_number():
    with Run() as local, pytest.raises(Failed, match=f"Port {local.front.port} cannot be used: Address already in use"):
        Run(local.front.port)


def test_the_next_run_can_have_the_same_port():
    with Run() as local:
        port = local.front.port
        local.announce("http://127.0.0.1:1")
        request.exchange("POST", local.front.url, b"{}")
    with Run(port) as local:
        assert local.front.port == port


def test_the_tools_use_the_only_run():
    with Run() as local:
        local.announce("http://127.0.0.1:4566")
        assert running.use_local_run() == local.front.url
        assert running.use_local_run(str(local.front.port)) == local.front.url
        assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"


def test_the_tools_find_a_run_only_between_announcement_and_end(runs):
    with Run() as local:
        with pytest.raises(Refused):
            running.use_local_run()
        local.announce("http://127.0.0.1:4566")
        folder = local.logs
    assert not folder.exists()
    with pytest.raises(Refused, match="`make run` is not running here"):
        running.use_local_run()


def test_with_two_runs_the_tools_ask_to_select_one():
    with Run() as one, Run() as other:
        for local in (one, other):
            local.announce("http://127.0.0.1:4566")
        with pytest.raises(Refused) as refused:
            running.use_local_run()
        for named in (str(one.front.port), str(other.front.port), "RUN="):
            assert named in str(refused.value)
        assert running.use_local_run(str(other.front.port)) == other.front.url
    assert running.running() == []


def test_the_end_of_one_run_leaves_the_other_up():
    with Run() as one:
        one.announce("http://127.0.0.1:4566")
        with Run() as other:
            other.announce("http://127.0.0.1:4567")
        assert running.use_local_run() == one.front.url


def test_refuses_a_port_without_a_run():
    with Run() as local:
        local.announce("http://127.0.0.1:4566")
        with pytest.raises(Refused, match=f"These ports have one: {local.front.port}"):
            running.use_local_run("1")


def test_the_tools_and_the_next_run_clean_up_after_a_killed_run(runs):
    program = """
        import sys, time
        from pathlib import Path
        from local_aws import run
        run.RUNS = Path(sys.argv[1])
        with run.Run() as local:
            local.announce("http://127.0.0.1:4566")
            print("up", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), runs]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert len(running.running()) == 1
        process.kill()
    [folder] = runs.glob("run-*")
    assert (folder / ADDRESSES).exists()
    assert running.running() == []
    assert not (folder / ADDRESSES).exists()
    with Run():
        assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"webhook_url": null, "endpoint": null}',
        "\xff",
        '{"webhook_url": "u", "endpoint": "e", "more": 1}',
    ],
)
def test_ignores_a_run_with_unreadable_addresses(content):
    with Run() as local:
        local.announce("http://127.0.0.1:4566")
        (local.logs / ADDRESSES).write_text(content)
        assert running.running() == []


def test_ignores_files_that_no_run_has_made(runs):
    runs.mkdir()
    (runs / "run-file").touch()
    (runs / "run-77" / "lock").mkdir(parents=True)
    (runs / "run-77" / ADDRESSES).mkdir()
    assert running.running() == []
    with Run() as local:
        local.announce("http://127.0.0.1:4566")
        assert [one.port for one in running.running()] == [str(local.front.port)]


def test_prints_nothing_about_malformed_requests(capfd):
    with Run() as local, socket.create_connection(("127.0.0.1", local.front.port)) as stranger:
        stranger.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert stranger.recv(100)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_leaves_its_logs_until_the_next():
    with pytest.raises(Failed), Run() as local:
        (local.logs / "build.log").touch()
        raise Failed("the build failed")
    assert (local.logs / "build.log").exists()
    with Run():
        assert not local.logs.exists()
