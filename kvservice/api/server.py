"""The gRPC server of clients: key-value, cluster, health and reflection services on one port.

They are served by several servers of grpc.aio, which share the port. One of them takes one call, or one new stream, a
turn of the event loop; a turn of a busy node has thousands of commands. Measured here, three nodes, a connection for
each client: of 1,000 streams opened at once 480 had had no answer after 18 s with one server, all had with 8; 50
clients made 1,250 unary Sets a second with one server (3 an entry), 2,450 with 8, 3,150 with 32 and 3,200 with 64.

Guarantees: an address that is taken is an OSError before anything is served, also when the process that has it is one
of ours. Clients that ping every ten seconds stay connected. A connection has no age limit: it would cut the streams of
pipelines. When the server stops, no call that may have been applied ends as UNAVAILABLE.
Health checks and reflection need no password: load balancers have none, and both say nothing of the data.
Leaves to the caller: what ready means, and stopping the service before the server.
Reference: gRPC core, grpc_types.h (channel arguments).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from errno import EADDRINUSE
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection, reflection_pb2  # type: ignore[import-untyped]

from kvservice.api.calls import Gate, bidirectional, server_streaming, unary
from kvservice.api.cluster import ClusterService
from kvservice.api.edge import Edge
from kvservice.api.health import HealthService, NodeHealth
from kvservice.api.kv import KeyValueService
from kvservice.cluster.members import Members
from kvservice.config import Config
from kvservice.config_values import HostPort
from kvservice.logs import Event, Log
from kvservice.service import Service
from redan.cluster.v1 import cluster_pb2
from redan.kv.v1 import kv_pb2

SERVERS: Final = 32
"""That share the port; the kernel gives each its part of the connections."""
STOP_SECONDS: Final = 2.0
"""What calls get to end by themselves, after they were told to."""
REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"

log = Log("grpc")


def options(config: Config) -> list[tuple[str, int]]:
    """Return the options of the server."""
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", config.grpc_max_message_bytes),
        ("grpc.max_send_message_length", config.grpc_max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # What a ping waits for its answer is this one; without it, a minute whatever the time-out above says.
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients often ping every 10 to 30 s; the default of 5 minutes answers that with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


class ApiServer:
    """The server and its services."""

    def __init__(self, service: Service, health: NodeHealth, members: Members) -> None:
        self.address: HostPort = service.config.grpc_addr
        """Where it listens; the port is the true one once it has started."""
        self.gate = Gate(service.config, _log_defect)
        """Counts of calls, by method."""
        self._service = service
        self._node_health = health
        self._health = HealthService(health, lambda: service.node.is_leader)
        self._members = members
        self._servers: list[grpc.aio.Server] = []
        self._edge: Edge | None = None

    async def start(self) -> None:
        """Bind and serve. Raise OSError when the address cannot be had."""
        config = self._service.config
        loop = asyncio.get_running_loop()
        _refuse_taken(config.grpc_addr)
        edge = self._edge = Edge(self._service, self._members, loop)
        key_value = KeyValueService(edge, self.gate, loop)
        cluster = ClusterService(self._service, self._node_health, self._members)
        address = config.grpc_addr
        for _ in range(SERVERS):
            server = self._new_server(key_value, cluster)
            try:
                port = server.add_insecure_port(str(address))
            except RuntimeError as error:
                raise OSError(f"cannot listen on {address} for gRPC clients: {error}") from error
            address = HostPort(address.host, port)
            await server.start()
            self._servers.append(server)
        self.address = address
        log.info(Event.LISTENING, plane="grpc", address=str(self.address))

    def _new_server(self, key_value: KeyValueService, cluster: ClusterService) -> grpc.aio.Server:
        config = self._service.config
        server = grpc.aio.server(options=options(config), maximum_concurrent_rpcs=config.maxclients)
        names = [
            _register(server, kv_pb2.DESCRIPTOR.services_by_name["KVService"], _key_value_calls(self.gate, key_value)),
            _register(
                server,
                cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"],
                _cluster_calls(self.gate, cluster),
            ),
        ]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        if config.grpc_reflection:
            _register_reflection(server, names)
        return server

    async def stop(self) -> None:
        """End every call and close; may be called twice, and without a start."""
        servers, self._servers = self._servers, []
        if not servers:
            return
        self._health.stop()
        assert self._edge is not None
        stopped = asyncio.gather(*(server.stop(STOP_SECONDS) for server in servers))
        self._edge.end_all()
        await stopped


def _refuse_taken(address: HostPort) -> None:
    """Raise OSError if somebody listens at an address: a port that may be shared would not tell."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return  # gRPC says what it thinks of the name
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                if error.errno == EADDRINUSE:
                    raise OSError(f"cannot listen on {address} for gRPC clients: {error.strerror}") from error


def _key_value_calls(gate: Gate, service: KeyValueService) -> Mapping[str, Any]:
    """Return what makes the handler of each method of KVService."""
    calls = {
        "Get": service.get,
        "Set": service.set,
        "Delete": service.delete,
        "Exists": service.exists,
        "Expire": service.expire,
        "Ttl": service.ttl,
        "Increment": service.increment,
        "MultiGet": service.multi_get,
        "MultiSet": service.multi_set,
        "Scan": service.scan,
        "Execute": service.execute,
    }
    handlers: dict[str, Any] = {
        name: lambda method, call=call: unary(gate, method, call) for name, call in calls.items()
    }
    handlers["ScanStream"] = lambda method: server_streaming(gate, method, service.scan_stream)
    handlers["Pipeline"] = lambda method: bidirectional(gate, method, service.pipeline)
    return handlers


def _cluster_calls(gate: Gate, service: ClusterService) -> Mapping[str, Any]:
    """Return what makes the handler of each method of ClusterService."""
    calls = {
        "Status": service.status,
        "ListMembers": service.list_members,
        "AddMember": service.add_member,
        "PromoteMember": service.promote_member,
        "RemoveMember": service.remove_member,
        "TransferLeadership": service.transfer_leadership,
        "TakeSnapshot": service.take_snapshot,
    }
    return {name: lambda method, call=call: unary(gate, method, call) for name, call in calls.items()}


def _register(server: grpc.aio.Server, service: ServiceDescriptor, handlers: Mapping[str, Any]) -> str:
    """Add a service, every method of it; return its name."""
    by_name = {method.name: handlers[method.name](method) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, by_name),))
    return service.full_name


def _register_reflection(server: grpc.aio.Server, names: list[str]) -> None:
    """Add reflection under both of its names: v1 has the messages of v1alpha, and new clients ask for v1 only."""
    v1alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    described = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
    v1 = text_format.Parse(described, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
    servicer = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME, REFLECTION_V1])
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        by_name = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, by_name),))


def _log_defect(method: str, error: BaseException) -> None:
    log.error(Event.COMMAND_DEFECT, command=method, error=repr(error), exc_info=error)
