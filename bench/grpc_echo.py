"""An empty server of grpc.aio: what a unary call costs before anybody does anything. ``bench.grpc_rates`` starts it.

Usage: python -m bench.grpc_echo PORT. It answers Get and Set with no bytes at all, without even decoding the request.
As in a node, several servers share the port (kvservice/api/server).
"""

from __future__ import annotations

import sys

import grpc
import uvloop

from kvservice.api.server import SERVERS


async def answer(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Answer an empty message."""
    return b""


async def serve(port: int) -> None:
    """Serve until killed."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    handlers = {"Get": handler, "Set": handler}
    servers = [grpc.aio.server(options=[("grpc.so_reuseport", 1)]) for _ in range(SERVERS)]
    for server in servers:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("redan.kv.v1.KVService", handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
    print("serving", flush=True)
    await servers[0].wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
