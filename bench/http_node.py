"""A Redan node with one more way in, plain HTTP: GET and PUT of /keys/KEY. For bench/protocols only.

Usage: python -m bench.http_node HTTP_PORT FLAGS, with the flags of ``redan serve``, each followed by its value. The
application is Starlette on uvicorn, on the node's own event loop; it takes the same path as the other ways in.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvservice.api.session import ApiSession
from kvservice.config_load import load_config
from kvservice.logs import configure
from kvservice.server import Server


class QuietUvicorn(uvicorn.Server):
    """uvicorn that leaves signals to the node."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class HttpNode(Server):
    """The node."""

    http_port = 0

    def _ready(self) -> None:
        super()._ready()
        self._sessions: ApiSession = ApiSession(self.service, "127.0.0.1:0", self.loop)
        routes = [Route("/keys/{key}", self._get), Route("/keys/{key}", self._put, methods=["PUT"])]
        settings = uvicorn.Config(
            Starlette(routes=routes), port=self.http_port, lifespan="off", log_config=None, access_log=False
        )
        self._http = asyncio.ensure_future(QuietUvicorn(settings).serve())

    async def _get(self, request: Request) -> Response:
        [value] = await self._sessions.run([[b"GET", request.path_params["key"].encode()]])
        return Response(value) if isinstance(value, bytes) else Response(status_code=404)

    async def _put(self, request: Request) -> Response:
        await self._sessions.run([[b"SET", request.path_params["key"].encode(), await request.body()]])
        return Response(status_code=204)


def main() -> None:
    """Serve until killed."""
    words = sys.argv[2:]
    flags = {
        name.removeprefix("--").replace("-", "_"): word for name, word in zip(words[::2], words[1::2], strict=True)
    }
    config = load_config(flags, {}).config
    configure(node=config.name, level="error", form="json")
    node = HttpNode(config)
    node.http_port = int(sys.argv[1])
    uvloop.run(node.serve())


if __name__ == "__main__":
    main()
