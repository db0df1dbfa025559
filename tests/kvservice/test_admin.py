"""The admin plane over real sockets."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from kvservice.admin import SAMPLES_A_SLICE, AdminError, AdminPlane
from kvservice.config_values import HostPort


class Health:
    """A node whose state the test sets."""

    def __init__(self) -> None:
        self.is_started = False
        self.reasons = ["loading"]

    def reasons_not_ready(self) -> list[str]:
        return self.reasons


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def plane(health: Health) -> AsyncIterator[AdminPlane]:
    registry = CollectorRegistry()
    Counter("redan_tries", "Tries.", registry=registry).inc(3)
    turns = Counter("redan_turns", "Turns.", ["wheel"], registry=registry)
    for wheel in range(3 * SAMPLES_A_SLICE):
        turns.labels(str(wheel)).inc(wheel)
    plane = AdminPlane(HostPort("127.0.0.1", 0), registry, health)
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def client(plane: AdminPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{plane.address}", trust_env=False) as client:
        yield client


async def test_liveness_holds_while_the_data_is_loading(client: httpx.AsyncClient) -> None:
    answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"live": True})


async def test_startup_and_readiness_follow_the_node(client: httpx.AsyncClient, health: Health) -> None:
    assert (await client.get("/startupz")).status_code == 503
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reasons": ["loading"]})
    health.is_started, health.reasons = True, []
    assert (await client.get("/startupz")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})
    health.reasons = ["draining"]
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/startupz")).status_code == 200


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# HELP redan_tries_total Tries.\n# TYPE redan_tries_total counter\nredan_tries_total 3.0\n" in answer.text


async def test_a_family_that_is_rendered_in_slices_reads_as_one(client: httpx.AsyncClient) -> None:
    lines = [line for line in (await client.get("/metrics")).text.splitlines() if "redan_turns_total" in line]
    assert lines[:2] == ["# HELP redan_turns_total Turns.", "# TYPE redan_turns_total counter"]
    assert lines[2:] == [f'redan_turns_total{{wheel="{wheel}"}} {wheel}.0' for wheel in range(3 * SAMPLES_A_SLICE)]


async def test_other_paths_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).text.startswith("Redan admin plane")
    assert (await client.get("/secrets")).status_code == 404
    assert (await client.post("/metrics")).status_code == 405


async def test_garbage_closes_one_connection_and_the_others_are_served(
    plane: AdminPlane, client: httpx.AsyncClient
) -> None:
    reader, writer = await asyncio.open_connection(plane.address.host, plane.address.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n")
    assert b"400" in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert (await client.get("/livez")).status_code == 200


async def test_a_taken_port_and_a_foreign_address_are_said_by_name(plane: AdminPlane, health: Health) -> None:
    for address in (plane.address, HostPort("192.0.2.1", 0), HostPort("no-such-host.invalid", 1)):
        with pytest.raises(AdminError, match=f"admin_addr {address} cannot be"):
            await AdminPlane(address, CollectorRegistry(), health).start()


async def test_signals_stay_with_the_node_and_the_port_is_free_after_a_stop(health: Health) -> None:
    before = signal.getsignal(signal.SIGTERM)
    plane = AdminPlane(HostPort("127.0.0.1", 0), CollectorRegistry(), health)
    await plane.start()
    async with httpx.AsyncClient(base_url=f"http://{plane.address}", trust_env=False) as client:
        assert (await client.get("/livez")).status_code == 200
        assert signal.getsignal(signal.SIGTERM) is before
    await plane.stop()
    await plane.stop()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(plane.address)


async def test_a_plane_that_never_started_stops(health: Health) -> None:
    plane = AdminPlane(HostPort("127.0.0.1", 0), CollectorRegistry(), health)
    await plane.stop()
    assert plane.address.port == 0
