"""The gRPC server of clients: key-value, cluster, health and reflection services on one port.

Guarantees: an address that is taken is an OSError before anything is served, also when the process that has it is one
of ours. Clients that ping every ten seconds stay connected. A connection has no age limit: it would cut the streams of
pipelines. When the server stops, no call that may have been applied ends as UNAVAILABLE.
Health checks and reflection need no password: load balancers have none, and both say nothing of the data.
Leaves to the caller: what ready means, and stopping the service before the server.
Reference: gRPC core, grpc_types.h (channel arguments).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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

STOP_SECONDS: Final = 2.0
"""What calls get to end by themselves, after they were told to."""
REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"

log = Log("grpc")


def options(config: Config) -> list[tuple[str, int]]:
    """Return the options of the server."""
    return [
        ("grpc.so_reuseport", 0),
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
        self._server: grpc.aio.Server | None = None
        self._edge: Edge | None = None

    async def start(self) -> None:
        """Bind and serve. Raise OSError when the address cannot be had."""
        config = self._service.config
        loop = asyncio.get_running_loop()
        server = grpc.aio.server(options=options(config), maximum_concurrent_rpcs=config.maxclients)
        edge = self._edge = Edge(self._service, self._members, loop)
        key_value = KeyValueService(edge, self.gate, loop)
        cluster = ClusterService(self._service, self._node_health, self._members)
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
        try:
            port = server.add_insecure_port(str(config.grpc_addr))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {config.grpc_addr} for gRPC clients: {error}") from error
        await server.start()
        self._server = server
        self.address = HostPort(config.grpc_addr.host, port)
        log.info(Event.LISTENING, plane="grpc", address=str(self.address))

    async def stop(self) -> None:
        """End every call and close; may be called twice, and without a start."""
        server, self._server = self._server, None
        if server is None:
            return
        self._health.stop()
        assert self._edge is not None
        stopped = asyncio.ensure_future(server.stop(STOP_SECONDS))
        self._edge.end_all()
        await stopped


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
