"""What schemathesis has to know of the HTTP door's media types, which it does not know by itself: CBOR, and Connect's envelopes."""

import ipaddress
import itertools
import json
import struct

import cbor2
import schemathesis

ENVELOPE = struct.Struct(">BI")
ADDRESSES = itertools.count()
# As `max-stream-events` in schemathesis.toml.
EVENTS_MAX = 1000


def enveloped(message: bytes) -> bytes:
    return ENVELOPE.pack(0, len(message)) + message


def opened(body: bytes) -> list[tuple[int, bytes]]:
    """The envelopes of a stream, which has to end with the one that says so."""
    envelopes = []
    while body:
        flags, length = ENVELOPE.unpack_from(body)
        message, body = body[ENVELOPE.size :][:length], body[ENVELOPE.size + length :]
        if len(message) != length:
            raise ValueError("a stream was cut")
        envelopes.append((flags, message))
    if not envelopes or [flags for flags, _ in envelopes if flags] != [2] or envelopes[-1][0] != 2:
        raise ValueError("a stream has to end once, at its end")
    return envelopes


@schemathesis.serializer("application/cbor")
def to_cbor(_ctx, value):
    return value if isinstance(value, bytes) else cbor2.dumps(value)


@schemathesis.serializer("application/connect+cbor")
def to_cbor_envelope(_ctx, value):
    return enveloped(value if isinstance(value, bytes) else cbor2.dumps(value))


@schemathesis.serializer("application/connect+json")
def to_json_envelope(_ctx, value):
    return enveloped(value if isinstance(value, bytes) else json.dumps(value).encode())


@schemathesis.deserializer("application/cbor")
def from_cbor(_ctx, response):
    return cbor2.loads(response.content)


@schemathesis.deserializer("application/connect+cbor")
def from_cbor_envelopes(_ctx, response):
    return [json.loads(message) if flags else cbor2.loads(message) for flags, message in opened(response.content)]


@schemathesis.deserializer("text/event-stream")
def from_events(_ctx, response):
    """As the document says: a text. That it ends as a stream has to is looked at here, unless it was too long for us."""
    text = response.content.decode()
    last = text.removesuffix("\n\n").rsplit("\n\n", 1)[-1]
    if text.count("\n\n") < EVENTS_MAX and not last.startswith(("event: end\n", "event: error\n")):
        raise ValueError("a stream of events has to end with `end` or `error`")
    return text


@schemathesis.hook
def before_call(_ctx, case, _kwargs):
    case.headers["X-Forwarded-For"] = str(ipaddress.IPv4Address(0x0A000000 + next(ADDRESSES)))
    # A method that streams its replies answers a bare message with events, if they are accepted.
    kind = case.operation.definition.raw.get("x-dialback-kind", "")
    if "server_stream" in kind and case.media_type in ("application/json", "application/cbor"):
        case.headers["Accept"] = "text/event-stream"


@schemathesis.hook
def after_call(_ctx, _case, response):
    """Every type that ends in +json is JSON to schemathesis. So it gets the messages of a stream as one list."""
    if response.headers.get("content-type") == ["application/connect+json"]:
        messages = [json.loads(message) for _, message in opened(response.content)]
        response.content = json.dumps(messages).encode()


# Refused before anything could run, whoever asks.
NEVER_RAN = (401, 405, 408, 414, 415)


@schemathesis.check
def outcome_fits_the_status(_ctx, response, _case):
    """What is said of the execution has to agree with the status of HTTP and with the shape of the answer."""
    outcome = response.headers["dialback-outcome"][0]
    is_whole = response.headers["content-type"][0] in ("application/json", "application/cbor")
    if response.status_code == 200:
        assert outcome == "ok" or not is_whole, f"a whole answer, and it says {outcome}"
        return
    assert outcome != "ok", f"{response.status_code}, and it says ok"
    # The code of a handler's own failure may have one of these statuses too.
    assert response.status_code not in NEVER_RAN or outcome in ("not_executed", "app_error"), (
        f"{response.status_code}, and it says {outcome}"
    )
