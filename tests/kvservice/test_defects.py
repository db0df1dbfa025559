"""What nobody foresaw: it is logged, and a node whose consensus driver was cut short ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from kvservice.defects import watch_loop
from kvservice.logs import configure
from replication.core.messages import Heartbeat
from tests.harness.local_server import LocalServer
from tests.harness.lone_raft import node


def two_leaders_in_one_term() -> None:
    raft = node(term=3)
    raft.step("n2", Heartbeat(3, 0, 0))
    raft.step("n3", Heartbeat(3, 0, 0))


def an_error_elsewhere() -> None:
    raise RuntimeError("elsewhere")


@pytest.fixture
def logged() -> StringIO:
    stream = StringIO()
    configure(node="n1", level="info", form="json", stream=stream)
    return stream


@pytest.mark.parametrize(("defect", "is_broken"), [(two_leaders_in_one_term, True), (an_error_elsewhere, False)])
async def test_a_defect_in_a_callback_is_logged_and_one_of_the_core_ends_the_node(
    logged: StringIO, defect: Callable[[], None], is_broken: bool
) -> None:
    loop = asyncio.get_running_loop()
    broken: list[bool] = []
    watch_loop(loop, lambda: broken.append(True))
    loop.call_soon(defect)
    await asyncio.sleep(0)
    assert broken == [True] * is_broken
    assert '"event":"defect_found"' in logged.getvalue().replace(": ", ":")
    assert defect.__name__ in logged.getvalue()


async def test_a_connection_that_times_out_is_no_defect(logged: StringIO) -> None:
    loop = asyncio.get_running_loop()
    watch_loop(loop, lambda: None)
    message = "Fatal error on transport"
    loop.call_exception_handler({"message": message, "exception": TimeoutError(110, "timed out"), "transport": None})
    assert "defect_found" not in logged.getvalue()
    assert message in logged.getvalue()


async def test_a_defect_of_the_core_in_a_task_that_was_dropped_ends_nothing(logged: StringIO) -> None:
    broken: list[bool] = []
    loop = asyncio.get_running_loop()
    watch_loop(loop, lambda: broken.append(True))

    async def fail() -> None:
        two_leaders_in_one_term()

    task = loop.create_task(fail())
    await asyncio.wait([task])
    del task
    assert "never retrieved" in logged.getvalue()
    assert broken == []


async def test_a_node_whose_driver_was_cut_short_ends_with_1_as_a_kill_would_end_it(
    tmp_path: Path, logged: StringIO
) -> None:
    here = LocalServer(tmp_path / "data")
    reader, writer = await here.connect()
    writer.write(b"SET k v\r\n")
    assert await reader.readline() == b"+OK\r\n"
    driver: Any = here.server.group.node
    asyncio.get_running_loop().call_soon(driver.receive, "n2", "no number", [])
    assert await here.ended() == 1
    assert await reader.read() == b""
    writer.close()
    assert "log_sealed" not in logged.getvalue()
    assert list((tmp_path / "data" / "snapshots").glob("*.snap")) == []
    again = LocalServer(tmp_path / "data")
    reader, writer = await again.connect()
    writer.write(b"GET k\r\n")
    assert await reader.readexactly(7) == b"$1\r\nv\r\n"
    writer.close()
    assert await again.stopped() == 0
