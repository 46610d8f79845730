#!/usr/bin/env python3
"""A small site with Python's standard library only: a login, a large download, uploads.

    python3 server.py [PORT]        port 0 picks a free one

The password of every user is `secret`.
"""

import hashlib
import html
import json
import secrets
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

LINE = b"%015d\n"
DOWNLOAD_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 64 * 1024
ETAG = '"numbers-1"'

SESSIONS = {}

PAGE = "<!doctype html><meta charset=utf-8><title>shop</title>{}\n"
LOGIN = PAGE.format("<form method=post action=/login><input name=name><input name=password type=password><button>Log in</button></form>")
HOME = PAGE.format("<p>Hello, {}!<p><a href=/download>Download</a><form method=post action=/logout><button>Log out</button></form>")


def numbers(start, end):
    """These bytes of the download, in pieces: each line is the number of its line."""
    while start < end:
        first, last = start // 16, (min(start + PIECE_BYTES, end) + 15) // 16
        text = b"".join(LINE % number for number in range(first, last))
        piece = text[start - first * 16 : min(start + PIECE_BYTES, end) - first * 16]
        start += len(piece)
        yield piece


def range_of(text):
    """First byte and end of `bytes=A-B`, `bytes=A-` or `bytes=-N`; None if they are not in the download."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, DOWNLOAD_BYTES - int(last)), DOWNLOAD_BYTES
    start, end = int(first), min(int(last) + 1, DOWNLOAD_BYTES) if last else DOWNLOAD_BYTES
    return (start, end) if start < end else None


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/login":
            self.reply(200, LOGIN)
        elif (name := self.user()) is None:
            self.redirect("/login")
        elif path == "/":
            self.reply(200, HOME.format(html.escape(name)))
        elif path == "/download":
            self.download()
        else:
            self.reply(404, "there is no such page\n", "text/plain")

    do_HEAD = do_GET

    def do_POST(self):
        form = parse_qs(b"".join(self.body()).decode())
        if self.path == "/login":
            if form.get("password") != ["secret"]:
                return self.reply(403, "wrong password\n", "text/plain")
            session = secrets.token_hex(16)
            SESSIONS[session] = form.get("name", ["nobody"])[0]
            secure = "; Secure" if self.headers.get("x-forwarded-proto") == "https" else ""
            self.redirect("/", f"session={session}; Path=/; HttpOnly; SameSite=Lax{secure}")
        elif self.path == "/logout":
            SESSIONS.pop(self.session(), None)
            self.redirect("/login", "session=; Path=/; Max-Age=0")
        else:
            self.reply(404, "there is no such form\n", "text/plain")

    def do_PUT(self):
        if self.user() is None:
            # Its body is still to come, or on the way.
            self.close_connection = True
            return self.reply(403, "log in first\n", "text/plain")
        digest, count = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            count += len(piece)
        print(f"stored {self.path}: {count} bytes", file=sys.stderr, flush=True)
        self.reply(201, json.dumps({"bytes": count, "sha256": digest.hexdigest()}) + "\n", "application/json")

    def session(self):
        cookie = SimpleCookie(self.headers.get("cookie", "")).get("session")
        return cookie.value if cookie else ""

    def user(self):
        return SESSIONS.get(self.session())

    def body(self):
        """The body of the request in pieces, of a known length or chunked."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return (yield from self.pieces(int(self.headers.get("content-length", 0))))
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield from self.pieces(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def pieces(self, left):
        while left:
            piece = self.rfile.read(min(left, PIECE_BYTES))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def download(self):
        if self.headers.get("if-none-match") == ETAG:
            return self.reply(304, "")
        wanted = self.headers.get("range")
        found = range_of(wanted) if wanted else (0, DOWNLOAD_BYTES)
        if found is None:
            return self.reply(416, "", more={"content-range": f"bytes */{DOWNLOAD_BYTES}"})
        start, end = found
        self.send_response(206 if wanted else 200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(end - start))
        self.send_header("accept-ranges", "bytes")
        self.send_header("etag", ETAG)
        if wanted:
            self.send_header("content-range", f"bytes {start}-{end - 1}/{DOWNLOAD_BYTES}")
        self.end_headers()
        if self.command == "GET":
            for piece in numbers(start, end):
                self.wfile.write(piece)

    def redirect(self, to, cookie=None):
        more = {"location": to} | ({"set-cookie": cookie} if cookie else {})
        self.reply(303, "", more=more)

    def reply(self, status, text, kind="text/html; charset=utf-8", more=None):
        body = text.encode()
        self.send_response(status)
        if status != 304:
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError as fault:
            print(f"hung up: {fault}", file=sys.stderr, flush=True)
            self.close_connection = True

    def log_message(self, *_):
        """Uploads log a line of their own."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9002), Site)
    server.daemon_threads = True
    print(f"serves http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
