"""An HTTP client that costs next to nothing: requests are made before, and of a response only its end is looked for.

Usage: python -m bench.http_client PORT get|put SECONDS. 50 connections, kept alive, one request at a time on each.
Guarantees: what is counted was answered with 2xx within the time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from time import monotonic, process_time
from typing import Final, cast

import uvloop

from bench.load import KEYS
from bench.resp_client import key_of, value_of

CONNECTIONS: Final = 50
REQUESTS_MADE: Final = 2000
WAIT_SECONDS_MAX: Final = 30.0
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def request_of(kind: str, number: int) -> bytes:
    """Return a request as a browser or a library would send it, with the fewest headers allowed."""
    head = b"%s /keys/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (b"GET" if kind == "get" else b"PUT", key_of(number))
    if kind == "get":
        return head + b"\r\n"
    body = value_of(number)
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class Caller(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered until time is up."""

    def __init__(self, requests: list[bytes], end: float, over: asyncio.Future[None]) -> None:
        self._requests = requests
        self._end = end
        self._over = over
        self._received = b""
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._requests[0])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            self._over.set_exception(ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or (length is not None and len(body) < int(length[1])):
            return
        if not head.startswith(b"HTTP/1.1 20"):
            self._over.set_exception(RuntimeError(head.decode(errors="replace")))
            return
        self._received = b""
        self.answered += 1
        if monotonic() < self._end:
            self._transport.write(self._requests[self.answered % len(self._requests)])
        elif not self._over.done():
            self._over.set_result(None)


async def measure(port: int, kind: str, seconds: float) -> dict[str, float]:
    """Run the load; return its rate and what it cost this process."""
    loop = asyncio.get_running_loop()
    requests = [request_of(kind, number * 7919 % KEYS) for number in range(REQUESTS_MADE)]
    used, started = process_time(), monotonic()
    callers: list[Caller] = []
    overs: list[asyncio.Future[None]] = []
    for number in range(CONNECTIONS):
        over: asyncio.Future[None] = loop.create_future()
        turned = requests[number:] + requests[:number]
        _, caller = await loop.create_connection(
            lambda turned=turned, over=over: Caller(turned, started + seconds, over),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        overs.append(over)
        callers.append(caller)
    await asyncio.wait_for(asyncio.gather(*overs), seconds + WAIT_SECONDS_MAX)
    took, answered = monotonic() - started, sum(caller.answered for caller in callers)
    return {"operations": answered, "rate": answered / took, "client_cpu_us": (process_time() - used) / answered * 1e6}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    print(json.dumps(uvloop.run(measure(int(arguments[0]), arguments[1], float(arguments[2])))))


if __name__ == "__main__":
    main(sys.argv[1:])
