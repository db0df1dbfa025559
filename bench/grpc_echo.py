"""An empty grpc.aio server: what a unary call costs before anybody does anything. For bench/grpc_rates only.

Usage: python -m bench.grpc_echo PORT. It answers Get with no bytes at all, without even decoding the request.
"""

from __future__ import annotations

import sys

import grpc
import uvloop


async def answer(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Answer an empty message."""
    return b""


async def serve(port: int) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("redan.kv.v1.KVService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
