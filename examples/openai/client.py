#!/usr/bin/env python3
"""Asks a model with OpenAI's API, and prints its answer as it comes. Python's standard library only.

    OPENAI_BASE_URL=http://HOST/v1 OPENAI_API_KEY=... python3 client.py TEXT [MAX_TOKENS]

OpenAI's own clients read the same variables.
"""

import http.client
import json
import os
import sys
from urllib.parse import urlsplit


def ask(text, max_tokens=None):
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    # RFC 6761: names below localhost are this machine. Not every resolver knows it.
    address = "127.0.0.1" if url.hostname.endswith(".localhost") else url.hostname
    connection = (http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection)(address, url.port)
    request = {"model": "parrot", "stream": True, "messages": [{"role": "user", "content": text}]}
    if max_tokens:
        request["max_tokens"] = int(max_tokens)
    headers = {
        "host": url.netloc,
        "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
        "content-type": "application/json",
    }
    connection.request("POST", f"{url.path}/chat/completions", json.dumps(request), headers)
    return connection.getresponse()


def main():
    response = ask(*sys.argv[1:])
    if response.status != 200:
        outcome = response.headers.get("dialback-outcome", "the model answered")
        sys.exit(f"error: HTTP {response.status} ({outcome}): {response.read().decode().strip()}")
    for line in response:
        event = line.decode().strip().removeprefix("data: ")
        if event == "[DONE]":
            return print()
        # Empty lines end an event, and lines with a colon keep a silent stream open.
        if event and not event.startswith(":"):
            print(json.loads(event)["choices"][0]["delta"].get("content", ""), end="", flush=True)
    sys.exit("\nerror: the stream ended without [DONE]")


if __name__ == "__main__":
    try:
        main()
    except (http.client.HTTPException, OSError) as fault:
        sys.exit(f"\nerror: the answer broke off: {fault!r}")
    except KeyboardInterrupt:
        pass
