#!/usr/bin/env python3
"""Lists the tools of an MCP server, or calls one. Needs the package mcp.

    MCP_TOKEN=... python3 client.py URL                 prints the names of the tools
    MCP_TOKEN=... python3 client.py URL TOOL JSON       calls a tool with these arguments, and prints its result

MCP_TOKEN is a token of the node. Exit codes: 1 for an error of JSON-RPC, 2 for any other failure.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from urllib.parse import urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult


class Failure(Exception):
    """A failure that is not an error of JSON-RPC."""


async def check_credential(response):
    """The SDK would only say that there was an error."""
    if response.status_code == 401:
        text = (await response.aread()).decode().strip()
        raise Failure(f"HTTP 401: {text}")


def http_client(url):
    headers = {}
    if token := os.environ.get("MCP_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    address = urlsplit(url)
    if (address.hostname or "").endswith(".localhost"):
        # RFC 6761: names below localhost are this machine. Not every resolver knows it.
        headers["host"] = address.netloc
        url = address._replace(netloc=address.netloc.replace(address.hostname, "127.0.0.1")).geturl()
    # Seconds. A tool may take a while without a byte.
    timeout = httpx2.Timeout(30, read=300)
    return url, httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks={"response": [check_credential]})


def answer_with(text):
    """Answers each question of the server with this text. Without it the server is told that the client takes none."""

    async def answer(_, question):
        print(f"asked: {question.message}", file=sys.stderr, flush=True)
        return ElicitResult(action="accept", content=dict.fromkeys(question.requested_schema["properties"], text))

    return answer if text is not None else None


async def run(args):
    url, http = http_client(args.url)
    async with http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=args.mode, elicitation_callback=answer_with(args.answer)) as client:
            if args.tool is None:
                for tool in (await client.list_tools()).tools:
                    print(tool.name)
                return
            result = await client.call_tool(args.tool, json.loads(args.arguments))
            lines = [block.text if block.type == "text" else f"({block.type})" for block in result.content]
            if result.is_error:
                raise Failure(f"the tool failed: {' '.join(lines)}")
            print(*lines, sep="\n")


def cause_of(error):
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def describe(error):
    """`dialback` adds the outcome and the id of the call; errors without them are the server's own, or of the SDK."""
    data = error.data if isinstance(error.data, dict) else {}
    outcome = f"outcome {data['outcome']}, call {data['call_id']}" if "outcome" in data else "no outcome"
    return f"error {error.code}: {error.message} ({outcome})"


def main():
    parser = argparse.ArgumentParser(description="Lists the tools of an MCP server, or calls one.")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("tool", metavar="TOOL", nargs="?")
    parser.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="default {}")
    parser.add_argument("--answer", metavar="TEXT", help="answer questions of the server with this text")
    modes = ["auto", "legacy", "2026-07-28"]
    parser.add_argument("--mode", choices=modes, default="auto", help="revision of MCP: legacy is the one with sessions")
    args = parser.parse_intermixed_args()
    # A failure is one line, which this program prints itself.
    logging.disable()
    try:
        asyncio.run(run(args))
    except Exception as raised:
        error = cause_of(raised)
        is_rpc_error = isinstance(error, MCPError)
        text = describe(error) if is_rpc_error else f"error: {error or type(error).__name__}"
        print(" ".join(text.split()), file=sys.stderr)
        sys.exit(1 if is_rpc_error else 2)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
