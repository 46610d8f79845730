#!/usr/bin/env python3
"""An ordinary gRPC client in front of a node: `probe.py GATEWAY (calls | broken METHOD | retried)`, in a directory with certs/ and token.

`calls` checks whatever gRPC has. `broken` makes a call that the test breaks, with a retry policy, and prints how it ended. `retried` makes a
call that does not reach its server at first.
"""

import json
import queue
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import probe_pb2
import probe_pb2_grpc
from probe_pb2 import Ask

# Nothing here takes longer on a working machine.
WAIT = 30
RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"],
}


def read(name):
    with open(name, "rb") as file:
        return file.read()


def connect(by_certificate=False, repeats=False):
    options = [("grpc.default_authority", "probe.test"), ("grpc.max_receive_message_length", -1)]
    if repeats:
        config = {"methodConfig": [{"name": [{}], "retryPolicy": RETRY}]}
        options.append(("grpc.service_config", json.dumps(config)))
    pair = (read("certs/caller-ops.key"), read("certs/caller-ops.pem")) if by_certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(read("certs/ca.pem"), *pair)
    if not by_certificate:
        token = grpc.access_token_call_credentials(read("token").decode())
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(sys.argv[1], credentials, options)


def failure(call):
    """The error of a call; fails if there is none."""
    try:
        reply = call()
        if hasattr(reply, "__next__"):
            list(reply)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it did not fail: {reply}")


def held(ask):
    """A stream of requests that does not end by itself."""
    yield ask
    queue.Queue().get()


def four_kinds(stub):
    assert stub.Unary(Ask(data=b"abc"), timeout=WAIT).data == b"abc"
    assert [a.number for a in stub.Down(Ask(count=3), timeout=WAIT)] == [0, 1, 2]
    reply = stub.Up((Ask(data=b"abc") for _ in range(5)), timeout=WAIT)
    assert (reply.number, reply.seconds_left) == (5, 15)
    assert [a.number for a in stub.Both((Ask() for _ in range(3)), timeout=WAIT)] == [0, 1, 2]
    # The server ends a client stream early.
    assert stub.Up(held(Ask(count=1)), timeout=WAIT).number == 1


def metadata(stub):
    sent = [("echo-text", "a"), ("echo-text", "b"), ("echo-bytes-bin", bytes(range(256)))]
    reply, call = stub.Unary.with_call(Ask(), metadata=sent, timeout=WAIT)
    for received in (call.initial_metadata(), call.trailing_metadata()):
        copied = [(key, value) for key, value in received if key.startswith("echo-")]
        assert sorted(copied) == sorted(sent), copied


def codes(stub):
    for code in grpc.StatusCode:
        number = code.value[0]
        if number == 0:
            continue
        # Without a message of the server the whole answer is one head; with one it is trailers.
        after_a_message = iter([Ask(), Ask(code=number)])
        for call in (
            lambda: stub.Unary(Ask(code=number), timeout=WAIT),
            lambda: stub.Down(Ask(code=number, count=1), timeout=WAIT),
            lambda: stub.Up(iter([Ask(code=number)]), timeout=WAIT),
            lambda: stub.Both(after_a_message, timeout=WAIT),
        ):
            error = failure(call)
            assert (error.code(), error.details()) == (code, "because é 100%\n"), error
    error = failure(lambda: stub.Unary(Ask(code=9, details=3_000), timeout=WAIT))
    status = rpc_status.from_call(error)
    assert status.message == "with details" and len(status.details) == 1, status


def deadlines(stub):
    left = stub.Unary(Ask(), timeout=WAIT).seconds_left
    assert WAIT - 10 < left <= WAIT + 1, left
    # gRPC's word for none is some hundred years.
    assert not 0 < stub.Unary(Ask()).seconds_left < 1e9


def cancelled(stub):
    def check(name, call):
        ask = Ask(id=f"{name}-{uuid.uuid4().hex}", ms=60_000, count=1)
        call(ask)
        assert stub.Ended(Ask(id=ask.id), timeout=WAIT).was_cancelled, name

    def cancel(start):
        def call(ask):
            running = start(ask)
            # Until it runs; what is cancelled before that never reaches the server.
            time.sleep(0.3)
            running.cancel()

        return call

    check("unary", cancel(lambda ask: stub.Unary.future(ask, timeout=WAIT)))
    check("down", cancel(lambda ask: stub.Down(ask, timeout=WAIT)))
    check("up", cancel(lambda ask: stub.Up.future(held(ask), timeout=WAIT)))
    check("both", cancel(lambda ask: stub.Both(held(ask), timeout=WAIT)))

    def late(ask):
        error = failure(lambda: stub.Unary(ask, timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

    check("deadline", late)


def sizes(stub):
    large = 4 << 20
    assert len(stub.Unary(Ask(data=b"x" * large), timeout=WAIT).data) == large
    assert [len(a.data) for a in stub.Down(Ask(count=3, size=large), timeout=WAIT)] == [large] * 3
    asks = (Ask(data=b"x" * large) for _ in range(3))
    assert stub.Up(asks, timeout=WAIT).seconds_left == 3 * large


def streams(stub):
    count = 10_000
    assert sum(1 for _ in stub.Down(Ask(count=count, size=100), timeout=2 * WAIT)) == count
    assert stub.Up((Ask(data=b"x" * 100) for _ in range(count)), timeout=2 * WAIT).number == count
    assert sum(1 for _ in stub.Both((Ask(size=100) for _ in range(count)), timeout=2 * WAIT)) == count


def concurrency(stub):
    with ThreadPoolExecutor(100) as threads:
        replies = threads.map(lambda _: stub.Unary(Ask(ms=200), timeout=WAIT).number, range(100))
        assert list(replies) == [1] * 100


def back_pressure(stub):
    # 100 MB that nobody reads yet: they neither arrive nor hold up other calls.
    unread = [stub.Down(Ask(count=1_000, size=10_000), timeout=2 * WAIT) for _ in range(10)]
    for down in unread:
        next(down)
    assert len(stub.Unary(Ask(size=100_000), timeout=WAIT).data) == 100_000
    assert sum(1 for _ in unread[0]) == 999
    for down in unread:
        down.cancel()


def services(stub, channel):
    request = health_pb2.HealthCheckRequest(service="probe.Probe")
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(request, timeout=WAIT).status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(request, timeout=WAIT)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    assert "probe.Probe" in ProtoReflectionDescriptorDatabase(channel).get_services()
    error = failure(lambda: channel.unary_unary("/probe.Probe/Nothing")(b"", timeout=WAIT))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    compressed = stub.Unary(Ask(data=b"x" * 100_000), compression=grpc.Compression.Gzip, timeout=WAIT)
    assert len(compressed.data) == 100_000


def calls():
    for by_certificate in (False, True):
        with connect(by_certificate) as channel:
            stub = probe_pb2_grpc.ProbeStub(channel)
            four_kinds(stub)
            metadata(stub)
    with connect() as channel:
        stub = probe_pb2_grpc.ProbeStub(channel)
        for check in (codes, deadlines, cancelled, sizes, streams, concurrency, back_pressure):
            check(stub)
        services(stub, channel)
    print("all calls passed")


def broken(stub, method):
    # Ends only when the test breaks it.
    ask = Ask(id="broken", ms=120_000, count=1)
    error = failure(
        {
            "Unary": lambda: stub.Unary(ask, timeout=2 * WAIT),
            "Down": lambda: stub.Down(ask, timeout=2 * WAIT),
            "Up": lambda: stub.Up(held(ask), timeout=2 * WAIT),
            "Both": lambda: stub.Both(held(ask), timeout=2 * WAIT),
            # As these, with a message that the client has read.
            "DownLate": lambda: stub.Down(Ask(id="broken", ms=50, count=10_000), timeout=2 * WAIT),
            "BothLate": lambda: stub.Both(held(Ask(id="broken")), timeout=2 * WAIT),
        }[method]
    )
    trailing = dict(error.trailing_metadata())
    outcome, pushback = trailing.get("dialback-outcome"), trailing.get("grpc-retry-pushback-ms")
    print(error.code().name, outcome, pushback)


def main():
    if sys.argv[2] == "calls":
        return calls()
    with connect(repeats=True) as channel:
        stub = probe_pb2_grpc.ProbeStub(channel)
        if sys.argv[2] == "broken":
            return broken(stub, sys.argv[3])
        stub.Unary(Ask(id="retried"), timeout=2 * WAIT)
        print("OK")


if __name__ == "__main__":
    main()
