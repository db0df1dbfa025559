"""The snapshots of a simulated process: taken in slices, sent to peers, received, and the log purged behind them.

Guarantees: files are written and read by the shipped code (`persistence.snapshot`, `kvservice.keyspace.image`); a
received one is durable before the node hears of it.
Leaves to the caller: when to take one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvservice.keyspace.image import SnapshotWalk
from persistence.errors import Damaged, DiskFailed, StorageError
from persistence.snapshot import (
    SnapshotMeta,
    SnapshotReader,
    SnapshotWriter,
    list_snapshots,
    purge_snapshots,
    remove_temporaries,
    snapshot_path,
)
from replication.core import membership
from replication.core.messages import InstallSnapshot
from replication.snapshot_receiver import INCOMING, remove_partial_snapshots

if TYPE_CHECKING:
    from kvservice.simulation.process import Process

SLICE_KEYS: Final = 6000
"""Slots without keys count as well: a snapshot takes three slices or more."""
SLICE_US: Final = 2_000
SENT_AGAIN_SHARE: Final = 0.2
SENT_AGAIN_US_MAX: Final = 3_000_000
"""Of the snapshots, those that arrive once more when the node has gone on: the word that they had come was lost."""


class SimulatedSnapshots:
    """The snapshots of one incarnation."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._host = process.host
        self._world = process.host.world
        self._directory = process.snapshots
        self._walk: SnapshotWalk | None = None
        self.last_index = 0
        """Up to here the state is in the newest one that this process has begun or found."""

    def let_go(self) -> None:
        """Free what a snapshot that is being written has kept."""
        self._walk = None

    def send(self, peer: str, snapshot: InstallSnapshot) -> None:
        """Stream the newest snapshot to a peer."""
        found = list_snapshots(self._directory, self._host.disk)
        if not found:
            self.take()
            self._failed_later(100_000, peer)
            return
        content = self._host.disk.content(found[0].path)
        duration_us = self._world.network.transfer_us(self._host.name, peer, len(content))
        target = self._world.hosts.get(peer)
        if duration_us is None or target is None or target.process is None:
            self._failed_later(50_000, peer)
            return
        received = target.process.snapshot_files.arrives
        message = snapshot._replace(last_index=found[0].last_index, last_term=found[0].last_term)
        arguments = (self._process, message, found[0].path.name, content)
        self._world.clock.after(duration_us, target.enter, target.process, received, *arguments)
        if self._host.random.random() < SENT_AGAIN_SHARE:
            again_us = duration_us + self._host.random.randrange(SENT_AGAIN_US_MAX)
            self._world.clock.after(again_us, target.enter, target.process, received, *arguments)
        self._failed_later(duration_us + 5_000_000, peer)

    def _failed_later(self, delay_us: int, peer: str) -> None:
        node = self._process.node
        self._world.clock.after(delay_us, self._host.enter, self._process, node.snapshot_sent, peer, False)

    def arrives(self, sender: Process, snapshot: InstallSnapshot, name: str, content: bytes) -> None:
        """Write a received snapshot durably, then step it in."""
        disk = self._host.disk
        partial = self._directory / INCOMING / name
        ok = False
        try:
            disk.make_dirs(partial.parent)
            handle = disk.open(partial, "create")
            disk.pwritev(handle, [content], 0)
            disk.fsync(handle)
            disk.close(handle)
            with SnapshotReader.open(partial, disk) as reader:
                configuration = membership.decode(reader.meta.configuration)
                reader.verify()
            disk.rename(partial, self._directory / name)
            disk.fsync_dir(self._directory)
            ok = True
        except StorageError as error:
            self._world.trace("%s cannot use a snapshot of %s: %s", self._host.name, sender.host.name, error)
            remove_partial_snapshots(self._directory, disk)
            if isinstance(error, Damaged):
                self._world.clock.after(500, sender.host.enter, sender, sender.snapshot_files.replace_damaged, name)
        host = sender.host
        self._world.clock.after(500, host.enter, sender, sender.node.snapshot_sent, self._host.name, ok)
        if ok:
            self._world.count("snapshots received")
            self._process.node.snapshot_received(host.name, snapshot._replace(configuration=configuration))

    def replace_damaged(self, name: str) -> None:
        """Read a snapshot again that a peer found damaged; if it is this node's copy, take another in its place."""
        disk, path = self._host.disk, self._directory / name
        try:
            with SnapshotReader.open(path, disk) as reader:
                reader.verify()
        except Damaged:
            self._world.count("damaged snapshots replaced")
            disk.unlink(path)
            disk.fsync_dir(self._directory)
            self.take()
        except DiskFailed:
            return

    def take_if_due(self) -> None:
        """Begin a snapshot if enough was applied since the last one."""
        if self._process.state.machine.index - self.last_index >= self._world.snapshot_every_entries:
            self.take()

    def take(self) -> None:
        """Begin a snapshot of the state, unless one is being written."""
        machine = self._process.state.machine
        if self._walk is not None or not machine.index or self._process.node.is_restoring:
            return
        meta = SnapshotMeta(machine.index, machine.term, machine.clock.stamp_ms, machine.configuration)
        path = snapshot_path(self._directory, meta.last_index, meta.last_term)
        self.last_index = machine.index
        if path.name in self._host.disk.listdir(self._directory):
            return
        self._walk = machine.begin_walk()
        writer = SnapshotWriter(self._directory, self._host.disk, meta, self._written, self._failed, threaded=False)
        self._walk_on(writer)

    def _walk_on(self, writer: SnapshotWriter) -> None:
        walk = self._walk
        if walk is None or self._process.state.machine.snapshot is not walk:
            # The state was replaced meanwhile.
            self._walk = None
            return
        chunk = walk.next_slice(SLICE_KEYS)
        if chunk is not None:
            writer.put(chunk)
            self._world.clock.after(SLICE_US, self._host.enter, self._process, self._walk_on, writer)
            return
        self._process.state.machine.snapshot = self._walk = None
        writer.finish(walk.items, walk.digest.to_bytes(8, "big"))
        writer.run()

    def _written(self, _path: Path) -> None:
        self._world.count("snapshots taken")
        kept = purge_snapshots(self._directory, self._host.disk, keep=2)
        if len(kept) >= 2:
            self._process.node.purge(min(file.last_index for file in kept) + 1)

    def _failed(self, error: DiskFailed) -> None:
        self._world.trace("%s cannot write a snapshot: %s", self._host.name, error)
        remove_temporaries(self._directory, self._host.disk)
