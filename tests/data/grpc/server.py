#!/usr/bin/env python3
"""The gRPC server of the tests: `server.py ADDRESS`, with the health and reflection services.

Copies metadata that begins with `echo-` from the request to the start and the end of the response. Prints a line when a call with an id begins.
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

import probe_pb2
import probe_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
# Calls by their id: the event of their end, and whether it was a cancellation.
ENDED = {}
LOCK = threading.Lock()


def log(text):
    print(text, file=sys.stderr, flush=True)


def ended(id):
    with LOCK:
        return ENDED.setdefault(id, [threading.Event(), True])


def began(method, ask, context):
    if ask.id:
        end = ended(ask.id)
        context.add_callback(lambda: end[0].set())
        attempts = dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "0")
        log(f"{method} {ask.id} begins, attempts before: {attempts}")
    copied = [pair for pair in context.invocation_metadata() if pair.key.startswith("echo-")]
    if copied:
        context.send_initial_metadata(copied)
        context.set_trailing_metadata(copied)


def completed(ask):
    """Called last: a call that ends without it was cancelled or failed."""
    if ask.id:
        ended(ask.id)[1] = False


def answer(number, ask, context):
    until = time.monotonic() + ask.ms / 1000
    while time.monotonic() < until and context.is_active():
        time.sleep(0.005)
    if ask.details:
        status = status_pb2.Status(code=ask.code, message="with details")
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.DebugInfo(detail="d" * ask.details))
        status.details.append(detail)
        context.abort_with_status(rpc_status.to_status(status))
    if ask.code:
        context.abort(CODES[ask.code], "because é 100%\n")
    left = context.time_remaining()
    data = ask.data or b"y" * ask.size
    return probe_pb2.Answer(number=number, data=data, seconds_left=left or -1)


class Probe(probe_pb2_grpc.ProbeServicer):
    def Unary(self, ask, context):
        began("Unary", ask, context)
        reply = answer(1, ask, context)
        if context.is_active():
            completed(ask)
        return reply

    def Down(self, ask, context):
        began("Down", ask, context)
        for number in range(ask.count):
            if not context.is_active():
                return
            yield answer(number, ask, context)
        completed(ask)

    def Up(self, asks, context):
        number, size = 0, 0
        for ask in asks:
            if number == 0:
                began("Up", ask, context)
            number, size = number + 1, size + len(ask.data)
            if ask.code or ask.ms:
                answer(number, ask, context)
            if ask.count == number:
                break
        if context.is_active():
            completed(ask)
        return probe_pb2.Answer(number=number, seconds_left=size)

    def Both(self, asks, context):
        for number, ask in enumerate(asks):
            if number == 0:
                began("Both", ask, context)
            yield answer(number, ask, context)
        completed(ask)

    def Ended(self, ask, context):
        event, was_cancelled = ended(ask.id)
        if not event.wait(10):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"{ask.id} still runs")
        return probe_pb2.Answer(was_cancelled=ended(ask.id)[1])


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=200), options=[("grpc.max_receive_message_length", -1)])
    probe_pb2_grpc.add_ProbeServicer_to_server(Probe(), server)
    healthy = health.HealthServicer()
    healthy.set("probe.Probe", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection(("probe.Probe", reflection.SERVICE_NAME), server)
    if server.add_insecure_port(sys.argv[1]) == 0:
        sys.exit(f"cannot listen on {sys.argv[1]}")
    server.start()
    log("serving")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
