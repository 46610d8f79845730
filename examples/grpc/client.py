#!/usr/bin/env python3
"""A plain gRPC client. What leads it through a node: the target, the authority, and a credential.

    TOKEN=... python3 client.py [CALL...]        or with --cert and --key in place of TOKEN

CALL is hello, count, sum, chat, nobody, wait, cancel, health or services; by default all of them.
"""

import argparse
import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import greeter_pb2
import greeter_pb2_grpc

# Seconds. Without one a call may last for ever.
TIMEOUT = 20


def connect(args):
    """The only lines that differ from those for a server without dialback."""
    read = lambda path: open(path, "rb").read() if path else None
    credentials = grpc.ssl_channel_credentials(read(args.ca), read(args.key), read(args.cert))
    if not args.cert:
        token = grpc.access_token_call_credentials(os.environ["TOKEN"])
        credentials = grpc.composite_channel_credentials(credentials, token)
    # The host of the site. Not needed where its name in DNS leads to the node: then it is the target.
    options = [("grpc.default_authority", args.authority)]
    return grpc.secure_channel(args.target, credentials, options)


def hello(stub, _):
    print("hello:", stub.Hello(greeter_pb2.HelloRequest(name="hello"), timeout=TIMEOUT).text)


def count(stub, _):
    numbers = stub.Count(greeter_pb2.CountRequest(n=3, interval_ms=10), timeout=TIMEOUT)
    print("count:", *(number.value for number in numbers))


def total(stub, _):
    numbers = (greeter_pb2.Number(value=i) for i in range(1, 101))
    print("sum:", stub.Sum(numbers, timeout=TIMEOUT).value)


def chat(stub, _):
    names = (greeter_pb2.HelloRequest(name=name) for name in ("ada", "grace"))
    print("chat:", *(reply.text for reply in stub.Chat(names, timeout=TIMEOUT)))


def nobody(stub, _):
    stub.Hello(greeter_pb2.HelloRequest(name="nobody"), timeout=TIMEOUT)


def wait(stub, _):
    stub.Wait(greeter_pb2.WaitRequest(ms=60_000), timeout=2)


def cancel(stub, _):
    numbers = stub.Count(greeter_pb2.CountRequest(n=100_000, interval_ms=10), timeout=TIMEOUT)
    print("cancel: after", next(numbers).value)
    numbers.cancel()


def healthy(_, channel):
    request = health_pb2.HealthCheckRequest(service="example.Greeter")
    status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT).status
    print("health:", health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def services(_, channel):
    print("services:", *sorted(ProtoReflectionDescriptorDatabase(channel).get_services()))


CALLS = {
    "hello": hello,
    "count": count,
    "sum": total,
    "chat": chat,
    "nobody": nobody,
    "wait": wait,
    "cancel": cancel,
    "health": healthy,
    "services": services,
}


def main():
    parser = argparse.ArgumentParser(description="Calls the greeter through a node.")
    parser.add_argument("--target", default="localhost:8443", help="the node's gateway")
    parser.add_argument("--authority", default="greeter.test", help="the host of the site")
    parser.add_argument("--ca", default="certs/ca.pem", help="who vouches for the gateway's certificate")
    parser.add_argument("--cert", help="certificate of the caller, in place of the variable TOKEN")
    parser.add_argument("--key")
    parser.add_argument("calls", nargs="*", metavar="CALL", default=list(CALLS))
    args = parser.parse_args()
    with connect(args) as channel:
        stub = greeter_pb2_grpc.GreeterStub(channel)
        for name in args.calls:
            try:
                CALLS[name](stub, channel)
            except grpc.RpcError as error:
                # `dialback-outcome` is on errors of the node and the agent: without it the server's own.
                trailing = dict(error.trailing_metadata() or ())
                outcome = trailing.get("dialback-outcome", "no outcome")
                print(f"{name}: {error.code().name} ({outcome}): {error.details()}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
