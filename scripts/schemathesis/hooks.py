"""Teaches schemathesis the media types of the HTTP gateway that it does not support: CBOR, and Connect's envelopes."""

import ipaddress
import itertools
import json
import struct

import cbor2
import schemathesis

ENVELOPE = struct.Struct(">BI")
ADDRESSES = itertools.count()
# HTTP statuses of Connect's error codes.
STATUSES = {
    "canceled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
}
# Same as `max-stream-events` in schemathesis.toml.
EVENTS_MAX = 1000


def enveloped(message: bytes) -> bytes:
    return ENVELOPE.pack(0, len(message)) + message


def opened(body: bytes) -> list[tuple[int, bytes]]:
    """Returns the envelopes of a stream. The last one, and only that, must have the end flag."""
    envelopes, at = [], 0
    while at < len(body):
        flags, length = ENVELOPE.unpack_from(body, at)
        at += ENVELOPE.size + length
        if at > len(body):
            raise ValueError("the stream is truncated")
        envelopes.append((flags, body[at - length : at]))
    if not envelopes or [flags for flags, _ in envelopes if flags] != [2] or envelopes[-1][0] != 2:
        raise ValueError("the end flag must be on the last envelope, and only there")
    return envelopes


@schemathesis.serializer("application/cbor")
def to_cbor(_ctx, value):
    return value if isinstance(value, bytes) else cbor2.dumps(value)


@schemathesis.serializer("application/connect+cbor")
def to_cbor_envelope(_ctx, value):
    return enveloped(value if isinstance(value, bytes) else cbor2.dumps(value))


@schemathesis.serializer("application/json")
def to_json(ctx, value):
    """schemathesis treats every type that ends in +json as JSON, that of the envelopes too."""
    message = value if isinstance(value, bytes) else json.dumps(value).encode()
    return enveloped(message) if ctx.case.media_type == "application/connect+json" else message


@schemathesis.deserializer("application/cbor")
def from_cbor(_ctx, response):
    return cbor2.loads(response.content)


@schemathesis.deserializer("application/connect+cbor")
def from_cbor_envelopes(_ctx, response):
    return [json.loads(message) if flags else cbor2.loads(message) for flags, message in opened(response.content)]


@schemathesis.deserializer("text/event-stream")
def from_events(_ctx, response):
    """Returns the text, which is the type in the document. Checks the end of the stream, unless schemathesis stopped reading before it."""
    text = response.content.decode()
    last = text.removesuffix("\n\n").rsplit("\n\n", 1)[-1]
    if text.count("\n\n") < EVENTS_MAX and not last.startswith(("event: end\n", "event: error\n")):
        raise ValueError("a stream of events must end with `end` or `error`")
    return text


@schemathesis.hook
def before_load_schema(_ctx, document):
    """OpenAPI cannot describe a message in an envelope, so the document allows any body. Uses the schema of the JSON message instead; the
    serializers add the envelope."""
    for path in document["paths"].values():
        content = path.get("post", {}).get("requestBody", {}).get("content", {})
        for media_type in content:
            if media_type.startswith("application/connect+"):
                content[media_type] = content["application/json"]


@schemathesis.hook
def before_call(_ctx, case, _kwargs):
    case.headers["X-Forwarded-For"] = str(ipaddress.IPv4Address(0x0A000000 + next(ADDRESSES)))
    # A server stream answers a bare message with events, if the request accepts them.
    kind = case.operation.definition.raw.get("x-dialback-kind", "")
    if "server_stream" in kind and case.media_type in ("application/json", "application/cbor"):
        case.headers["Accept"] = "text/event-stream"


@schemathesis.hook
def after_call(_ctx, _case, response):
    """In Connect, a call that fails before its first message has status 200 and one envelope. Converts that response to an ordinary error, so
    that the same checks apply, and the messages of a JSON stream to one list."""
    media_type = response.headers["content-type"][0]
    if media_type not in ("application/connect+json", "application/connect+cbor"):
        return
    envelopes = opened(response.content)
    error = json.loads(envelopes[-1][1]).get("error")
    if error and len(envelopes) == 1:
        response.status_code = STATUSES.get(error["code"], 500)
        response.headers["content-type"] = ["application/json"]
        response.content = json.dumps(error).encode()
    elif media_type == "application/connect+json":
        response.content = json.dumps([json.loads(message) for _, message in envelopes]).encode()


# Statuses of requests that are refused before anything runs, for every caller.
NEVER_RAN = (401, 405, 408, 414, 415)


@schemathesis.check
def outcome_fits_the_status(_ctx, response, _case):
    """The outcome must agree with the HTTP status and with the format of the response."""
    outcome = response.headers["dialback-outcome"][0]
    is_whole = response.headers["content-type"][0] in ("application/json", "application/cbor")
    if response.status_code == 200:
        assert outcome == "ok" or not is_whole, f"a complete response has the outcome {outcome}"
        return
    assert outcome != "ok", f"{response.status_code} has the outcome ok"
    # The code of a handler's own error may map to one of these statuses too.
    assert response.status_code not in NEVER_RAN or outcome in ("not_executed", "app_error"), (
        f"{response.status_code} has the outcome {outcome}"
    )
