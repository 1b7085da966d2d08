"""The consumers in examples/, each deployed by its own template. A topic replaces the lead status stream."""

import json
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from uuid import uuid4

import boto3

from local_aws.function import ROOT, architecture, build, run_sam
from local_aws.stack import as_ministack_takes_it
from ops.running import REGION
from ops.stack import outputs

MAX_BATCH = 10  # messages in one call to SNS or SQS


def deploy(example, emulator, **parameters):
    """Builds and deploys examples/<example>, and returns the outputs of its stack."""
    directory = emulator.scratch / example
    source = ROOT / "examples" / example / "template.yaml"
    given = {"Architecture": architecture(), **parameters}
    overrides = ["--parameter-overrides", *(f"{name}={json.dumps(str(value))}" for name, value in given.items())]
    built = build(directory, emulator.logs, source)
    adapted = built.with_name("adapted.yaml")
    adapted.write_text(as_ministack_takes_it(built.read_text()))
    where = ["--stack-name", example, "--region", REGION, "--no-confirm-changeset", "--no-progressbar"]
    run_sam("deploy", ["--template-file", str(adapted), *where, *overrides], emulator.logs)
    return outputs(example)


class Stream:
    """A topic, and messages to it as the webhook function publishes them."""

    def __init__(self):
        self._sns = boto3.client("sns")
        self.arn = self._sns.create_topic(Name=f"status-{uuid4()}")["TopicArn"]

    def publish(self, *events):
        """Publishes changes, with the attributes that subscribers filter by."""
        entries = [{"Id": str(number), **_message(event)} for number, event in enumerate(events)]
        for start in range(0, len(entries), MAX_BATCH):
            published = self._sns.publish_batch(
                TopicArn=self.arn, PublishBatchRequestEntries=entries[start : start + MAX_BATCH]
            )
            assert not published.get("Failed"), published

    def publish_text(self, text):
        """Publishes something that is not a change."""
        self._sns.publish(TopicArn=self.arn, Message=text)


def _message(event):
    data = event["data"]
    attributes = {"eventType": event["type"], "newStatus": data["newStatus"], "crmStage": data["crmStage"]}
    return {
        "Message": json.dumps(event),
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
        "MessageGroupId": event["subject"],
    }


def eventually(condition, patience=60):
    """Waits until a condition is true. Returns its last value."""
    deadline = time.monotonic() + patience
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def depth(queue_url):
    """Returns the number of messages in a queue, including received ones."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def change(lead, number, status, stage):
    """Returns a change of a lead. A higher number is a later change."""
    minutes, seconds = divmod(number, 60)
    return {
        "specversion": "1.0",
        "id": f"evt_{lead}_{number}",
        "source": "urn:sendpilot:workspace:ws_abc123xyz",
        "type": "sendpilot.lead.status_changed",
        "subject": lead,
        "time": f"2024-02-24T10:{minutes:02}:{seconds:02}Z",
        "datacontenttype": "application/json",
        "data": {"leadId": lead, "newStatus": status, "crmStage": stage},
    }


class Endpoint:
    """The HTTP endpoint that a consumer calls. It records each call. A test can make it refuse, redirect or delay."""

    def __init__(self):
        self.answers = 200
        self.requires = None  # a header and its value
        self.unauthorized = 401  # the answer without this header
        self.headers = {}  # of the last call
        self.delays = {}  # seconds before a call takes effect, by idempotency key
        self.overlaps = []  # paths that were called while an earlier call to them was in progress
        self._calls, self._busy, self._lock = [], [], Lock()

    def calls(self):
        """Returns the method, path, idempotency key, body and acceptance of each call so far."""
        with self._lock:
            return list(self._calls)

    def took(self):
        return [call for call in self.calls() if call[4]]

    def is_idle(self):
        with self._lock:
            return not self._busy

    @contextmanager
    def serving(self):
        """Serves on a free loopback port, and yields the URL."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                key = self.headers["idempotency-key"]
                with endpoint._lock:
                    endpoint.overlaps += [self.path] * (self.path in endpoint._busy)
                    endpoint._busy.append(self.path)
                # The call takes effect even if the caller has given up. Its retry is not delayed.
                time.sleep(endpoint.delays.pop(key, 0))
                with endpoint._lock:
                    endpoint.headers = self.headers
                    authorized = not endpoint.requires or self.headers[endpoint.requires[0]] == endpoint.requires[1]
                    answer = endpoint.answers if authorized else endpoint.unauthorized
                    endpoint._busy.remove(self.path)
                    endpoint._calls.append((self.command, self.path, key, body, answer == 200))
                self._answer(answer)

            do_POST = do_PUT

            def do_GET(self):
                """Serves the target of the redirects, a page that changes nothing."""
                self._answer(200)

            def _answer(self, status):
                self.send_response(status)
                self.send_header("location", "/login")
                self.send_header("content-length", "0")
                # The caller may have given up.
                with suppress(ConnectionError):
                    self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
