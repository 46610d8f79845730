#!/usr/bin/env python3
"""An issue tracker as an MCP server, without any support for dialback. Needs the package mcp.

    python3 server.py [PORT]        at http://127.0.0.1:PORT/mcp; port 0 picks a free one
    python3 server.py stdio         on standard input and output

The issues are lines of a file, TRACKER_FILE or tracker.txt: `started TITLE` and `done TITLE`.
"""

import asyncio
import os
import socket
import sys
from typing import Annotated

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Elicit, Resolve
from pydantic import BaseModel

FILE = os.environ.get("TRACKER_FILE", "tracker.txt")

server = MCPServer("tracker", version="1.0.0", log_level="WARNING")


def log(text):
    """To standard error: over stdio, standard output is for messages only."""
    print(text, file=sys.stderr, flush=True)


def began(tool, ctx):
    # Only the agent writes this header: it removes it from what a client sends. Over stdio there are no headers.
    log(f"{tool} by {(ctx.headers or {}).get('dialback-caller', 'an unknown caller')}")


def write_line(text):
    """Appends a line with one write: several processes use the file."""
    file = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{' '.join(text.split())}\n".encode())
    finally:
        os.close(file)


@server.tool()
def list_issues() -> list[str]:
    """List the titles of all issues."""
    if not os.path.exists(FILE):
        return []
    with open(FILE, encoding="utf-8") as lines:
        return [line.strip().removeprefix("done ") for line in lines if line.startswith("done ")]


@server.tool()
async def create_issue(title: str, ctx: Context, ms: int = 0) -> str:
    """Create an issue, which takes this number of milliseconds."""
    began("create_issue", ctx)
    write_line(f"started {title}")
    await asyncio.sleep(ms / 1000)
    write_line(f"done {title}")
    return f"created {title}"


@server.tool()
def delete_all(ctx: Context) -> str:
    """Delete all issues."""
    began("delete_all", ctx)
    open(FILE, "w").close()
    return "deleted all"


class Title(BaseModel):
    title: str


def ask_user(question: str) -> Elicit[Title]:
    return Elicit(question, Title)


@server.tool()
async def ask_title(question: str, answer: Annotated[Title, Resolve(ask_user)], ctx: Context) -> str:
    """Ask the user for a title (an elicitation), and create the issue."""
    return await create_issue(answer.title, ctx)


def serve_http(port):
    listener = socket.create_server(("127.0.0.1", port))
    log(f"tracker serves http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["stdio"]:
            server.run("stdio")
        else:
            serve_http(int(sys.argv[1]) if len(sys.argv) > 1 else 9005)
    except KeyboardInterrupt:
        pass
