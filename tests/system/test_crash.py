"""kill -9 at random moments under load: every acknowledged write is there, none is half there."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.harness.process import NodeProcess

KILLS = 200
WRITERS = 4
BATCH = 8
PLACES = 100


class Writer(threading.Thread):
    """Writes numbered values over one connection until it breaks; knows what was acknowledged.

    Each MSET writes a number under two keys, so that half a write would show; the number chooses the keys' place. A
    pipeline of BATCH commands is in flight. A second writer goes on where the one before the crash has ended.
    """

    def __init__(self, port: int, name: int, before: Writer | None = None) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.name_number = name
        self.sent: int = before.sent if before is not None else 0
        self.newest: list[int] = list(before.newest) if before is not None else [0] * PLACES
        """By place: the newest number that was acknowledged."""
        self.acknowledged = 0
        """How many writes were acknowledged to this writer."""

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            replies = sock.makefile("rb")
            while True:
                request = b""
                numbers = range(self.sent + 1, self.sent + BATCH + 1)
                for number in numbers:
                    request += self._command(number)
                self.sent += BATCH
                try:
                    sock.sendall(request)
                    for number in numbers:
                        if replies.readline() != b"+OK\r\n":
                            return
                        self.newest[number % PLACES] = number
                        self.acknowledged += 1
                except OSError:
                    return

    def _command(self, number: int) -> bytes:
        text = b"%d" % number
        keys = (b"w%d:a:%d" % (self.name_number, number % PLACES), b"w%d:b:%d" % (self.name_number, number % PLACES))
        parts = [b"MSET", keys[0], text, keys[1], text]
        return b"*5\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def check(node: NodeProcess, writers: list[Writer]) -> None:
    """Compare the node's keys with what each writer sent and what was acknowledged to it."""
    with node.client() as client:
        for writer in writers:
            found = client.mget([f"w{writer.name_number}:{half}:{place}" for place in range(PLACES) for half in "ab"])
            for place, newest in enumerate(writer.newest):
                first, second = found[2 * place], found[2 * place + 1]
                where = f"writer {writer.name_number}, place {place}, acknowledged {newest}, sent {writer.sent}"
                assert first == second, f"half of a write: {where}, found {first!r} and {second!r}"
                assert newest <= int(first or 0) <= writer.sent, f"a lost or invented write: {where}, found {first!r}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_acknowledged_write_is_lost_over_two_hundred_kills_under_load(tmp_path: Path) -> None:
    seed = int(os.environ.get("REDAN_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"REDAN_TEST_SEED={seed}")
    chance = random.Random(seed)
    acknowledged = 0
    writers: list[Writer] = []
    flags = ("--wal-segment-bytes", "256kb", "--snapshot-every-bytes", "1mb")
    with NodeProcess(tmp_path, *flags) as node:
        for _ in range(KILLS):
            port = node.addresses["resp"][1]
            writers = [Writer(port, name, writers[name] if writers else None) for name in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(chance.uniform(0.0, 0.15))  # the moment of the crash is what the test varies
            node.kill()
            for writer in writers:
                writer.join(20)
                assert not writer.is_alive()
            node.start()
            check(node, writers)
            acknowledged += sum(writer.acknowledged for writer in writers)
        assert acknowledged > KILLS, "the load wrote next to nothing"
        print(f"{KILLS} kills, {acknowledged} acknowledged writes, none lost")


POINTS = ("proposed", "persisting", "durable", "applying", "applied")


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_a_named_point_loses_nothing_acknowledged(tmp_path: Path, point: str) -> None:
    node = NodeProcess(tmp_path)
    node.environment = {"REDAN_CRASH_POINT": f"{point}:40"}
    try:
        node.start()
        writer = Writer(node.addresses["resp"][1], 0)
        writer.start()
        assert node.wait() == -9
        writer.join(20)
        node.environment = {}
        node.start()
        check(node, [writer])
        assert writer.acknowledged > 0
    finally:
        node.kill()
