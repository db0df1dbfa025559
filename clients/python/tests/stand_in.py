"""A gRPC server that answers as a test tells it: the other side of the client, for what no real node does on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from redan_client.stubs import cluster_pb2, kv_pb2

KV = kv_pb2.DESCRIPTOR.services_by_name["KVService"]
CLUSTER = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"]


class Refusal(Exception):  # noqa: N818 - what a call is answered with
    """The status that ends a call."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", **metadata: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.metadata = metadata

    def end(self, context: grpc.ServicerContext) -> None:
        """End a call; does not return."""
        if self.reason:
            status = status_pb2.Status(code=self.code.value[0], message=f"because of {self.reason}")
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="redan", metadata=self.metadata)
            status.details.add().Pack(info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, f"because of {self.reason}" if self.reason else "no details")


def not_applied(reason: str = "NO_LEADER") -> Refusal:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if reason == "OUT_OF_MEMORY" else grpc.StatusCode.UNAVAILABLE
    return Refusal(code, reason, outcome="not_applied", prefix="CLUSTERDOWN")


def unknown() -> Refusal:
    return Refusal(grpc.StatusCode.ABORTED, "LEADERSHIP_LOST", outcome="unknown", prefix="UNKNOWN")


def rejected() -> Refusal:
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_TYPE", outcome="rejected", prefix="WRONGTYPE")


class Node:
    """One stand-in: what it was asked, and what it will answer."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[tuple[str, Any]] = []
        """Method and request of every call of KVService."""
        self.metadata: list[dict[str, str | bytes]] = []
        self.answers: list[Any] = []
        """A response, a Refusal, or a function of the request that returns one, or None in a stream: its end; the last
        stays."""
        self.status: Callable[[], cluster_pb2.StatusResponse] = lambda: leading("n1", n1=self.address)
        self.status_calls = 0

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer one call."""
        self.asked.append((method, request))
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Refusal):
            answer.end(context)
        return answer

    def requests(self) -> list[Any]:
        """Return the requests of KVService so far."""
        return [request for _, request in self.asked]


def leading(leader: str, **addresses: str) -> cluster_pb2.StatusResponse:
    """Return what the first of some nodes says of a cluster that one of them leads."""
    members = [
        cluster_pb2.Member(name=name, voter=True, grpc_address=address, leader=name == leader)
        for name, address in addresses.items()
    ]
    return cluster_pb2.StatusResponse(node=next(iter(addresses)), leader=leader, term=1, members=members)


@contextmanager
def stand_in() -> Iterator[Node]:
    """Serve a node on a port of 127.0.0.1 that the kernel chooses."""
    node = Node()

    def unary(method: Any) -> Any:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            if method.name == "Status":
                node.status_calls += 1
                return node.status()
            return node.answer(method.name, request, context)

        module = cluster_pb2 if method.containing_service is CLUSTER else kv_pb2
        parse = getattr(module, method.input_type.name).FromString
        return grpc.unary_unary_rpc_method_handler(handle, parse, lambda response: response.SerializeToString())

    def pipeline(requests: Iterator[kv_pb2.PipelineRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            answer = node.answer("Pipeline", request, context)
            if answer is None:
                return  # the stream ends in order, whatever has not been answered
            yield answer

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for service in (KV, CLUSTER):
        handlers = {method.name: unary(method) for method in service.methods}
        if service is KV:
            handlers["Pipeline"] = grpc.stream_stream_rpc_method_handler(
                pipeline, kv_pb2.PipelineRequest.FromString, lambda response: response.SerializeToString()
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    node.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield node
    finally:
        server.stop(None).wait()
