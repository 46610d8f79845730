#!/usr/bin/env python3
"""A chat room over WebSocket, without any support for dialback. Needs the package websockets.

    python3 server.py [PORT]        port 0 picks a free one

The first message of a connection is a name; each further one goes to everybody in the room.
"""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

MEMBERS = set()


def say(text):
    print(text, file=sys.stderr, flush=True)
    broadcast(MEMBERS, text)


async def member(connection):
    # Only the agent writes this header: it removes it from what a client sends.
    caller = connection.request.headers.get("dialback-caller", "nobody")
    try:
        name = f"{await connection.recv()} ({caller})"
    except ConnectionClosed:
        return
    MEMBERS.add(connection)
    say(f"{name} joined")
    try:
        async for text in connection:
            say(f"{name}: {text}")
    except ConnectionClosed:
        pass  # without a close frame: the client, the agent or the node is gone
    MEMBERS.discard(connection)
    say(f"{name} left")


async def main(port):
    async with serve(member, "127.0.0.1", port) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"serves ws://127.0.0.1:{port}", file=sys.stderr, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9001))
    except KeyboardInterrupt:
        pass
