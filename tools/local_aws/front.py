"""Serves a local run's address, and passes only SendPilot's requests on to the deployed API.

A tunnel makes this address public. The local AWS has another port, because anyone who reaches that
port controls this machine.
"""

import logging
import os
import re
import socket
from threading import Thread

from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from local_aws.progress import Failed
from ops import request as client

PATH = "/webhooks/sendpilot"
# API Gateway's limit, in bytes
# (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html).
LARGEST = 10 * 1024 * 1024
# The headers that the function may read. Other headers could control the local AWS.
PASSED = re.compile(r"content-type|user-agent|(svix|webhook)-.*", re.IGNORECASE)
# This server sets these headers itself.
OWN = {"connection", "content-length", "transfer-encoding", "date", "server"}


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds between two parts of a request


class Front:
    """A context with a server at `url`.

    The server answers 503 until `target`, the URL of the deployed webhook, is set.
    """

    def __init__(self, port: int | None = None):
        try:
            self._socket = socket.create_server(("127.0.0.1", port or 0))
        except OSError as error:
            raise Failed(
                f"Port {port} cannot be used: {os.strerror(error.errno)}. Choose another port, or leave PORT out."
            ) from None
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self.target = None
        logging.getLogger("werkzeug").disabled = True  # it would print every request
        self._server = make_server(
            "127.0.0.1", self.port, self._answer, threaded=True, request_handler=_Handler, fd=self._socket.fileno()
        )
        self._server.daemon_threads = True

    def __enter__(self):
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._socket.close()

    def _answer(self, environment, start):
        try:
            answer = self._forward(Request(environment))
        except HTTPException as refusal:
            answer = refusal.get_response(environment)
        return answer(environment, start)

    def _forward(self, request):
        # API Gateway ignores one slash at the end.
        if (request.method, request.path.removesuffix("/")) != ("POST", PATH):
            return Response(f"Only POST {PATH} exists here.\n", 404)
        if self.target is None:
            return Response("The local run is not deployed yet.\n", 503)
        request.max_content_length = LARGEST
        headers = {name: value for name, value in request.headers.items() if PASSED.fullmatch(name)}
        try:
            answer = client.exchange("POST", self.target, request.get_data(), headers)
        except (OSError, ValueError) as error:
            return Response(f"The local AWS does not answer: {error}\n", 502)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in OWN}
        return Response(answer.body, answer.status, kept)
