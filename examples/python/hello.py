#!/usr/bin/env python3
"""HelloService for a dialback agent, with Python's standard library only.

    python3 hello.py [PORT [GREETING]]        port 0 picks a free one

The agent sends each call as POST /HelloService/METHOD: a JSON value in, a JSON value out. An error is a status that is not 200 and an object
with code and message. A stream is a sequence of messages with a five-byte header each; the last one is marked. This is the Connect protocol.
"""

import json
import select
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = "hello"


class Refusal(Exception):
    """An error response: the caller receives its code and message."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class HangUp(Exception):
    """The caller no longer waits for the reply: it cancelled the call, or the deadline has passed."""


def hello(name, call):
    if not isinstance(name, str):
        raise Refusal(400, "invalid_argument", "a name is a text")
    if name == "nobody":
        raise Refusal(404, "not_found", "nobody is called nobody")
    return f"{GREETING}:{name}"


def who(_, call):
    """Returns the caller as named by the agent, which removes such headers from a caller's metadata."""
    return {"caller": call.headers["dialback-caller"], "node": call.headers["dialback-node"]}


def sleep(request, call):
    call.wait(request["ms"] / 1000)
    return None


def count(request, call):
    for i in range(1, request["n"] + 1):
        yield {"i": i}
        call.wait(request.get("interval_ms", 0) / 1000)
    if request.get("then_fail"):
        raise Refusal(None, "aborted", "that is enough")


METHODS = {"Hello": hello, "Who": who, "Sleep": sleep}
STREAMS = {"Count": count}


class Call(BaseHTTPRequestHandler):
    # Without it each call uses a new connection.
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = self.rfile.read(int(self.headers["content-length"]))
        method = self.path.rpartition("/")[2]
        print(f"called: {method} by {self.headers['dialback-caller']}", file=sys.stderr, flush=True)
        try:
            if self.headers["content-type"] == "application/connect+json":
                self.answer_with_stream(STREAMS.get(method), json.loads(request[5:]))
            else:
                self.answer(METHODS.get(method), json.loads(request))
        except (HangUp, BrokenPipeError, ConnectionResetError):
            print(f"hung up: {method}", file=sys.stderr, flush=True)
            self.close_connection = True

    def answer(self, method, request):
        try:
            if method is None:
                raise Refusal(404, "unimplemented", "there is no such method here")
            self.reply(200, method(request, self))
        except Refusal as refusal:
            self.reply(refusal.status, {"code": refusal.code, "message": refusal.message})

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_with_stream(self, method, request):
        self.send_response(200)
        self.send_header("content-type", "application/connect+json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        end = {}
        try:
            if method is None:
                raise Refusal(None, "unimplemented", "there is no such stream here")
            for value in method(request, self):
                self.send_message(0, value)
        except Refusal as refusal:
            end = {"error": {"code": refusal.code, "message": refusal.message}}
        self.send_message(2, end)
        self.wfile.write(b"0\r\n\r\n")

    def send_message(self, flags, value):
        message = json.dumps(value).encode()
        chunk = struct.pack(">BI", flags, len(message)) + message
        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    def wait(self, seconds):
        """Waits, or raises HangUp: the agent closes the connection when the caller no longer waits for the reply."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], left)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise HangUp

    def log_message(self, *_):
        """do_POST already logs one line per call."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    GREETING = sys.argv[2] if len(sys.argv) > 2 else GREETING
    server = ThreadingHTTPServer(("127.0.0.1", port), Call)
    server.daemon_threads = True
    print(f"serves http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
