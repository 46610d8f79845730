#!/usr/bin/env python3
"""A language model with OpenAI's API, with Python's standard library only: a parrot.

    python3 server.py [PORT]        port 0 picks a free one

It repeats the last message word by word, `max_tokens` words of it, from the start again if there are fewer. It has /v1/models
and /v1/chat/completions, the latter also as a stream of server-sent events.
"""

import itertools
import json
import select
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "parrot"
SECONDS_A_WORD = 0.02


class HangUp(Exception):
    """The client no longer waits for the answer."""


def words_of(request):
    words = request["messages"][-1]["content"].split()
    count = request.get("max_tokens", len(words))
    return itertools.islice(itertools.cycle(words), count)


def completion(kind, choice):
    choice = {"index": 0, "finish_reason": None} | choice
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": MODEL, "choices": [choice]}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path != "/v1/models":
            return self.fail(404, f"there is no {self.path}")
        self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "examples"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/chat/completions":
            return self.fail(404, f"there is no {self.path}")
        # dialback has used the API key, and does not pass it on; it says whose it is.
        print(f"asked by {self.headers.get('dialback-caller')}", file=sys.stderr, flush=True)
        try:
            request = json.loads(body)
            words = words_of(request)
        except (ValueError, LookupError, TypeError, AttributeError):
            return self.fail(400, "the body is not a request of chat/completions")
        try:
            if request.get("stream"):
                self.stream(words)
            else:
                message = {"role": "assistant", "content": " ".join(words)}
                self.reply(200, completion("chat.completion", {"message": message, "finish_reason": "stop"}))
        except (HangUp, ConnectionError):
            print("stopped: the client has gone", file=sys.stderr, flush=True)
            self.close_connection = True

    def stream(self, words):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.send_delta({"role": "assistant", "content": ""})
        for number, word in enumerate(words):
            self.send_delta({"content": f" {word}" if number else word})
            self.wait(SECONDS_A_WORD)
        self.send_delta({}, finish_reason="stop")
        self.send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def send_delta(self, delta, **more):
        self.send_event(json.dumps(completion("chat.completion.chunk", {"delta": delta} | more)))

    def send_event(self, text):
        event = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def wait(self, seconds):
        """Waits, or raises HangUp: the agent closes the connection when the client has gone."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise HangUp

    def fail(self, status, text):
        self.reply(status, {"error": {"message": text, "type": "invalid_request_error"}})

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """do_POST logs a line of its own."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9003), Api)
    server.daemon_threads = True
    print(f"serves http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
