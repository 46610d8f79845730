#!/usr/bin/env python3
"""Joins the chat room of server.py. Needs the package websockets.

    TOKEN=... python3 client.py URL NAME            sends each line of standard input, and prints what everybody says
    TOKEN=... python3 client.py URL NAME TEXT       says this, and leaves

TOKEN is a token of the node; without the variable none is sent.
"""

import asyncio
import os
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def options(url):
    found = {}
    if token := os.environ.get("TOKEN"):
        found["additional_headers"] = {"Authorization": f"Bearer {token}"}
    if urlsplit(url).hostname.endswith(".localhost"):
        found["host"] = "127.0.0.1"  # as RFC 6761 says and browsers do; not every resolver knows it
    return found


async def send_lines(connection):
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        await connection.send(line.decode().rstrip("\n"))
    await connection.close()


async def print_all(connection):
    async for text in connection:
        print(text, flush=True)


async def main(url, name, text=None):
    async with connect(url, **options(url)) as connection:
        await connection.send(name)
        if text is None:
            sending = asyncio.create_task(send_lines(connection))
            await print_all(connection)
            sending.cancel()
            return
        await connection.send(text)
        while not (said := await connection.recv()).endswith(f": {text}"):
            pass
        print(said)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except InvalidStatus as refusal:
        sys.exit(f"error: HTTP {refusal.response.status_code}: {refusal.response.body.decode().strip()}")
    except (ConnectionClosed, OSError) as fault:
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        pass
