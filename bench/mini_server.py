"""A server of GET and SET on one dict, in variants: which event loop, which parser. For bench/runtimes only.

Usage: python -m bench.mini_server PORT asyncio|uvloop python|hiredis|compiled [FOLDER]. FOLDER has the compiled parser.
It trusts its clients, forgets all, and has no limits: it is the least that each variant can cost.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
import uvloop

Feed = Callable[[bytes], bytes]
BACKLOG: Final = 512


def python_feed(module: Any, values: dict[bytes, bytes]) -> Feed:
    """Return what makes replies of bytes, with a parser in Python, compiled or not."""
    rest = b""

    def feed(received: bytes) -> bytes:
        nonlocal rest
        whole = rest + received
        commands, used = module.parse(whole)
        rest = whole[used:]
        return cast(bytes, module.answer(values, commands))

    return feed


def hiredis_feed(module: Any, values: dict[bytes, bytes]) -> Feed:
    """Return what makes replies of bytes, with hiredis as the parser."""
    reader = hiredis.Reader()

    def feed(received: bytes) -> bytes:
        reader.feed(received)
        commands: list[list[bytes]] = []
        while (command := reader.gets()) is not False:
            commands.append(command)
        return cast(bytes, module.answer(values, commands))

    return feed


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._feed(data))


async def serve(port: int, parser: str) -> None:
    """Serve until killed."""
    module = importlib.import_module("mini_parser" if parser == "compiled" else "bench.mini_parser")
    make_feed = hiredis_feed if parser == "hiredis" else python_feed
    values: dict[bytes, bytes] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(make_feed(module, values)), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Serve as the arguments say."""
    port, loop, parser = int(arguments[0]), arguments[1], arguments[2]
    sys.path[:0] = arguments[3:]
    (uvloop.run if loop == "uvloop" else asyncio.run)(serve(port, parser))


if __name__ == "__main__":
    main(sys.argv[1:])
