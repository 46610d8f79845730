#!/usr/bin/env python3
"""A plain gRPC server, without TLS and without dialback, with the health and reflection services.

    python3 server.py [HOST:PORT]        default 127.0.0.1:50051; port 0 picks a free one

It prints a line for each call: the method, the caller that the agent names, and the time that the client gave it.
"""

import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import greeter_pb2
import greeter_pb2_grpc


def log(text):
    print(text, file=sys.stderr, flush=True)


def began(method, context):
    """The agent removes `dialback-caller` from what a client sends and adds its own."""
    caller = dict(context.invocation_metadata()).get("dialback-caller", "nobody")
    left = context.time_remaining()
    # Without a deadline gRPC says some hundred years.
    deadline = "no deadline" if left is None or left > 1e9 else f"{left:.1f} s left"
    log(f"{method} by {caller}, {deadline}")


class Greeter(greeter_pb2_grpc.GreeterServicer):
    def Hello(self, request, context):
        began("Hello", context)
        if request.name == "nobody":
            context.set_trailing_metadata((("greeter-hint", "try another name"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody is called nobody")
        return greeter_pb2.HelloReply(text=f"hello:{request.name}")

    def Count(self, request, context):
        began("Count", context)
        try:
            for i in range(1, request.n + 1):
                yield greeter_pb2.Number(value=i)
                time.sleep(request.interval_ms / 1000)
        finally:
            if not context.is_active():
                log("Count was cancelled")

    def Sum(self, requests, context):
        began("Sum", context)
        return greeter_pb2.Number(value=sum(request.value for request in requests))

    def Chat(self, requests, context):
        began("Chat", context)
        for request in requests:
            yield greeter_pb2.HelloReply(text=f"hello:{request.name}")

    def Wait(self, request, context):
        began("Wait", context)
        until = time.monotonic() + request.ms / 1000
        while time.monotonic() < until:
            if not context.is_active():
                log("Wait was cancelled")
                return greeter_pb2.Number()
            time.sleep(0.01)
        return greeter_pb2.Number(value=request.ms)


def main():
    listen = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    # Each call holds a thread while it runs.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=100))
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    service = greeter_pb2.DESCRIPTOR.services_by_name["Greeter"].full_name
    healthy = health.HealthServicer()
    healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(listen)
    server.start()
    log(f"serves h2c://{listen.rpartition(':')[0]}:{port}")
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
