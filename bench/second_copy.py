"""Snapshots or replication? What a snapshot costs while it is taken, and what a second durable copy costs each write.

Usage: python -m bench.second_copy [--quick]. The second copy stands for replication: another process gets the same
bytes over a loopback connection, syncs them to its own file and says so, while the first syncs its own. Both files are
on one disk here, and the network is none: with two machines the disks do not disturb each other and a round trip
of the network comes on top.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from threading import Event, Thread
from time import perf_counter_ns
from typing import Final

from bench.experiment import Table, run
from bench.load import requests_for, run_load
from bench.report import ROOT, SCRATCH, percentile
from bench.resp_client import RespClient
from bench.servers import Redan, settled_save

LENGTH: Final = Struct("<I")
SIZES: Final = (1024, 16 * 1024)
COPIER_SECONDS_MAX: Final = 30.0


class SyncedFile:
    """A file of zeros that blocks are written to and synced, one after the other."""

    def __init__(self, path: Path, size: int) -> None:
        path.write_bytes(bytes(size))
        self._file = os.open(path, os.O_RDWR)
        os.fsync(self._file)
        self._offset = 0

    def append(self, block: bytes) -> None:
        """Write and sync."""
        os.pwrite(self._file, block, self._offset)
        os.fdatasync(self._file)
        self._offset += len(block)


def copy(path: Path, size: int) -> None:
    """Be the second copy: print the port, take blocks from one connection, sync each, answer each with one byte."""
    target = SyncedFile(path, size)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        listener.settimeout(COPIER_SECONDS_MAX)
        peer, _address = listener.accept()
    with peer, peer.makefile("rb") as incoming:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := incoming.read(LENGTH.size):
            target.append(incoming.read(LENGTH.unpack(head)[0]))
            peer.sendall(b".")


class Copies:
    """The first copy here and the second in another process."""

    def __init__(self, folder: Path, size: int) -> None:
        self.own = SyncedFile(folder / "own", size)
        command = [sys.executable, "-m", "bench.second_copy", "--copy", str(folder / "second"), str(size)]
        self._copier = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._copier.stdout is not None
        port = int(self._copier.stdout.readline())
        self._peer = socket.create_connection(("127.0.0.1", port), COPIER_SECONDS_MAX)
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, block: bytes) -> None:
        """Start the second copy of a block."""
        self._peer.sendall(LENGTH.pack(len(block)) + block)

    def await_copy(self) -> None:
        """Wait until the second copy is durable."""
        if self._peer.recv(1) != b".":
            raise ConnectionResetError("the second copy has gone")

    def both(self, block: bytes) -> None:
        """Make both copies durable at the same time, as a leader does."""
        self.send(block)
        self.own.append(block)
        self.await_copy()

    def elsewhere(self, block: bytes) -> None:
        """Make the second copy durable only: what a leader waits for whose own disk is slower than a majority."""
        self.send(block)
        self.await_copy()

    def close(self) -> None:
        """End the other process."""
        self._peer.close()
        try:
            self._copier.wait(COPIER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._copier.kill()
            self._copier.wait()
        assert self._copier.stdout is not None
        self._copier.stdout.close()


def copy_rows(writes: int) -> list[list[str | float]]:
    """Measure one and two copies at several sizes of write."""
    rows: list[list[str | float]] = []
    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            copies = Copies(Path(folder), size * writes * 3)
            try:
                block = os.urandom(size)
                ways: dict[str, Callable[[bytes], None]] = {
                    "own disk only": copies.own.append,
                    "own disk and a second process, together": copies.both,
                    "the second process only": copies.elsewhere,
                }
                taken: dict[str, list[int]] = {name: [] for name in ways}
                for _ in range(writes):
                    # In turn, so that other work of the disk meets all alike.
                    for name, act in ways.items():
                        started = perf_counter_ns()
                        act(block)
                        taken[name].append(perf_counter_ns() - started)
                for name, spent in taken.items():
                    spent.sort()
                    rows.append(
                        [f"{size // 1024} KiB, {name}", percentile(spent, 50) / 1e3, percentile(spent, 99) / 1e3]
                    )
            finally:
                copies.close()
    return rows


def snapshot_rows(keys: int, seconds: float) -> list[list[str | float]]:
    """Measure a node without a snapshot running, and one that takes snapshots all the time."""
    with Redan("always") as server:
        server.start()
        with server.client() as client:
            client.fill(keys)
            requests = requests_for(server.port, "set", seconds, pipeline=16, clients=50)
            quiet = run_load(server.port, "set", requests=requests, pipeline=16)
            took, size = settled_save(server, client)
            with RespClient(server.port) as saving:
                enough = Event()
                saver = Thread(target=_save_until, args=(saving, enough), daemon=True)
                saver.start()
                busy = run_load(server.port, "set", requests=requests, pipeline=16)
                enough.set()
                saver.join()
    return [
        ["SET/s, durable, pipeline 16, no snapshot", quiet.rate],
        ["SET/s while snapshots are taken without pause", busy.rate],
        ["p99 without, ms", quiet.p99_ms],
        ["p99 meanwhile, ms", busy.p99_ms],
        ["one snapshot on an idle node, s", took],
        ["its size, MiB", size / 2**20],
    ]


def _save_until(client: RespClient, enough: Event) -> None:
    while not enough.is_set():
        client.call(b"SAVE")


def measure(quick: bool) -> list[Table]:
    """Measure both."""
    writes, keys, seconds = (50, 5_000, 0.2) if quick else (2000, 1_000_000, 4.0)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return [
        Table("A second durable copy of each write", ["Write", "p50, us", "p99, us"], copy_rows(writes)),
        Table(f"Snapshots of {keys:,} keys", ["Figure", "Redan"], snapshot_rows(keys, seconds)),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--copy"]:
        copy(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run("second_copy", measure)
