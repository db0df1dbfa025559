"""The admin plane: metrics and probes over plain HTTP, on the event loop of the node.

Guarantees: an address that cannot be bound raises AdminError before anything is served; signals stay with the node; a
    scrape holds the loop for SAMPLES_A_SLICE lines at a time. It never says why in more words than an operator needs,
    and nothing of the keyspace.
    /livez     200 as soon as the loop turns: never depends on a leader, on the disk or on replay
    /startupz  200 once the data is loaded, else 503
    /readyz    200 while clients should be sent here, else 503; in both cases a JSON body with the reasons against
    /metrics   Prometheus's text format 0.0.4, which every scraper takes, whatever it asks for
Leaves to the caller: what readiness means (kvservice/health), and when to stop. There is no password: bind it where
    only operators and probes can reach it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kvservice.config_values import HostPort
from kvservice.health import NodeHealth
from kvservice.logs import Event, Log

BACKLOG: Final = 128  # probes and a scraper or two; what is beyond is refused by the kernel
CONNECTIONS_MAX: Final = 64
STOP_SECONDS: Final = 2.0
SAMPLES_A_SLICE: Final = 64  # the library takes 7 us a line: half a millisecond

_log = Log("admin")

_INDEX: Final = """\
Redan admin plane
  /livez     does the event loop turn
  /startupz  is the data loaded
  /readyz    should clients be sent here
  /metrics   metrics for Prometheus
"""


class AdminError(OSError):
    """The admin address could not be bound."""


class AdminPlane:
    """One HTTP server for metrics and probes."""

    def __init__(self, address: HostPort, registry: CollectorRegistry, health: NodeHealth) -> None:
        self.address = address
        """Where it listens; the port is the true one once it has started."""
        self._registry = registry
        self._health = health
        self._server: _NodeUvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve; raise AdminError when the address cannot be bound."""
        listener = _bind(self.address)
        self.address = HostPort(self.address.host, listener.getsockname()[1])
        config = uvicorn.Config(
            self.application(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=1,
        )
        self._server = _NodeUvicorn(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="admin")
        _log.info(Event.LISTENING, plane="admin", address=str(self.address))

    async def stop(self) -> None:
        """Stop serving, within STOP_SECONDS; may be called twice, and without a start."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        task, self._task = self._task, None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, STOP_SECONDS)

    def application(self) -> Starlette:
        """Return the HTTP application, which tests call without a socket."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/livez", self._live),
                Route("/startupz", self._started),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )

    async def _index(self, _request: Request) -> Response:
        return PlainTextResponse(_INDEX)

    async def _live(self, _request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _started(self, _request: Request) -> Response:
        started = self._health.is_started
        return JSONResponse({"started": started}, status_code=200 if started else 503)

    async def _ready(self, _request: Request) -> Response:
        reasons = list(self._health.reasons_not_ready())
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    async def _metrics(self, _request: Request) -> Response:
        text = bytearray()
        for part in _rendered(self._registry):
            text += part
            await asyncio.sleep(0)  # commands of clients go first
        return Response(bytes(text), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


def _rendered(registry: CollectorRegistry) -> Iterator[bytes]:
    """Yield the text of a scrape in parts that hold the event loop for about SAMPLES_A_SLICE lines each."""
    for family in registry.collect():
        samples = family.samples
        for start in range(0, max(1, len(samples)), SAMPLES_A_SLICE):
            family.samples = samples[start : start + SAMPLES_A_SLICE]
            part = generate_latest(_OneFamily(family))
            # Every part comes with the family's HELP and TYPE, and a family may have them once.
            yield part if start == 0 else part.split(b"\n", 2)[2]


class _OneFamily(Collector):
    """A collector of one family, so that the library's encoder can be run on one at a time."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _NodeUvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: SIGTERM is the node's to handle."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _bind(address: HostPort) -> socket.socket:
    """Bind the admin address; a port in use, a foreign address and a name that does not resolve become AdminError."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AdminError(f"admin_addr {address} cannot be used: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AdminError(f"admin_addr {address} cannot be bound: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
