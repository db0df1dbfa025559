"""From a locked data directory to a consensus core: what the directory is, which cluster it belongs to, what it holds.

Cases of a directory (``charter_of``):

A. it has a charter: the node comes back;
B. it has a log and no charter: it was written by version 0.1, a cluster of this node alone;
C. it has a snapshot and neither: a backup that was put there; this node alone founds a cluster on it;
D. it is empty: kvservice/cluster/bootstrap decides.

Damage (``open_group``): what cannot be read is moved aside, and the node begins anew in quarantine, if it knows other
members who can give it everything again. Where it knows nobody, the damage is raised: nothing is guessed. A damaged
snapshot that an older one and the log stand in for is moved aside, and that is all.

Guarantees: the charter, and after damage the quarantine, are durable before anything else is done. Nothing is deleted.
Leaves to the caller: answering other nodes meanwhile (kvservice/cluster/peer_plane), and the exit code.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time_ns
from typing import Final, NamedTuple

from kvservice import recovery
from kvservice.cluster import charter as charters
from kvservice.cluster.bootstrap import BootstrapRefused, bootstrap, join
from kvservice.cluster.charter import Charter
from kvservice.cluster.peer_plane import PeerPlane
from kvservice.config import Config
from kvservice.keyspace.machine import Machine
from kvservice.logs import Event, Log
from persistence.data_dir import SALT_BYTES, DataDir, set_aside
from persistence.disk import Disk
from persistence.errors import Damaged
from persistence.segment import list_segments
from persistence.snapshot import list_snapshots
from persistence.wal import Wal
from replication.core import membership
from replication.core.membership import Configuration
from replication.core.raft import Raft
from replication.core.settings import Settings
from replication.salvage import salvage
from replication.snapshot_receiver import remove_partial_snapshots
from replication.storage import LogEnd, Storage

TICK_MS: Final = 10
REPAIRS_MAX: Final = 3
"""META, log and snapshots may each turn out to be damaged; a fourth time is no damage but a defect."""

log = Log("cluster")


class Opened(NamedTuple):
    """What a node is made of."""

    wal: Wal
    storage: Storage
    end: LogEnd
    raft: Raft
    snapshot_index: int
    charter: Charter


def open_directory(config: Config, disk: Disk) -> tuple[DataDir, bool]:
    """Lock the directory, or create it; also return whether its META could not be read and was moved aside.

    Raises StorageError, and BootstrapRefused if it is another node's.
    """
    is_unreadable = False
    try:
        directory = _open(config, disk)
    except Damaged as damage:
        if len(config.initial_cluster) < 2 and not config.join:
            raise
        # Without META nothing says what this node has acknowledged: it is as good as a disk that is gone.
        moved = set_aside(config.data_dir, disk, ["META", "wal", "snapshots"], _label())
        log.error(Event.DAMAGE_SET_ASIDE, error=str(damage), moved=", ".join(map(str, moved)))
        directory = _open(config, disk)
        is_unreadable = True
    if directory.identity != config.name.encode():
        owner = directory.identity.decode(errors="backslashreplace")
        directory.close()
        raise BootstrapRefused(
            f"{config.data_dir} belongs to the node {owner}, and this one is named {config.name}: a node keeps its name"
        )
    return directory, is_unreadable


def _open(config: Config, disk: Disk) -> DataDir:
    return DataDir.open(config.data_dir, disk, identity=config.name.encode(), make_salt=lambda: os.urandom(SALT_BYTES))


async def charter_of(
    config: Config, directory: DataDir, disk: Disk, plane: PeerPlane, *, is_unreadable: bool
) -> Charter:
    """Return how this node belongs to its cluster; durable. Raises BootstrapRefused, StorageError."""
    if directory.charter:
        try:
            found = charters.decode(directory.charter)
        except ValueError as error:
            raise Damaged(str(directory.path / "META"), 0, str(error)) from error
        members = ", ".join((found.latest if found.latest.members else found.configuration).members)
        log.info(Event.CLUSTER_ENTERED, how="came back", cluster=found.cluster_id, members=members)
        return found
    newcomer = plane.newcomer(may_found=not is_unreadable)
    alone = Configuration((config.name,), addresses={config.name: newcomer.peer_address})
    directory_id = directory.salt.hex()
    snapshots = await asyncio.to_thread(list_snapshots, directory.snapshots, disk)
    if directory.log_created or list_segments(directory.wal, disk)[0]:
        how, charter = "took over the data of version 0.1", Charter(directory_id, alone)
    elif snapshots:
        if len(config.initial_cluster) > 1 or config.join:
            raise BootstrapRefused(
                f"{directory.snapshots} holds a snapshot: start this node alone on it, and let the others join it"
            )
        how, charter = "founded it on a snapshot", Charter(directory_id, alone, snapshots[0].last_index)
    elif config.join:
        how, charter = "joins", await join(newcomer, [str(address) for address in config.join], plane.peers)
    else:
        how, charter = "founded it", await bootstrap(newcomer, plane.first, plane.peers)
    charter = charter._replace(latest=charter.configuration)
    await asyncio.to_thread(directory.write_charter, charters.encode(charter))
    log.info(
        Event.CLUSTER_ENTERED,
        how="comes back without its data" if charter.is_quarantined and not config.join else how,
        cluster=charter.cluster_id,
        members=", ".join(charter.configuration.members),
    )
    return charter


async def open_group(
    config: Config, directory: DataDir, disk: Disk, new_machine: Callable[[], Machine], charter: Charter
) -> tuple[Opened, Machine]:
    """Read what the directory holds; return it with the machine that the snapshot was loaded into.

    Raises Damaged if nobody can repair what is damaged, and other errors of storage.
    """
    for _ in range(REPAIRS_MAX):
        machine = new_machine()
        try:
            return await _read_group(config, directory, disk, machine, charter), machine
        except Damaged as damage:
            charter = await _begin_anew(config, directory, disk, charter, damage)
    machine = new_machine()
    return await _read_group(config, directory, disk, machine, charter), machine


async def _read_group(config: Config, directory: DataDir, disk: Disk, machine: Machine, charter: Charter) -> Opened:
    must_exist = directory.log_created
    wal = await recovery.open_log(directory.wal, disk, config, directory.salt, must_exist=must_exist)
    try:
        directory.mark_log_created()
        await asyncio.to_thread(remove_partial_snapshots, directory.snapshots, disk)
        damaged: list[Damaged] = []
        meta = await recovery.load_snapshot(directory.snapshots, disk, machine, wal.first_index, damaged.append)
        if damaged:
            paths = [Path(found.file) for found in damaged]
            await asyncio.to_thread(set_aside_snapshots, directory, paths, "; ".join(map(str, damaged)))
        storage = Storage(wal)
        index, term = (meta.last_index, meta.last_term) if meta is not None else (0, 0)
        end = await asyncio.to_thread(storage.recover, index, term)
    except BaseException:
        await asyncio.to_thread(wal.close, seal=False)
        raise
    configuration = charter.configuration
    if meta is not None and meta.configuration and meta.last_index > charter.index:
        configuration = membership.decode(meta.configuration)
    if charter.is_quarantined or end.hard_state.term < charter.term:
        had = end.hard_state
        vote = had.vote if had.term >= charter.term else ""
        quarantined = had.quarantined or charter.is_quarantined
        end = end._replace(
            hard_state=had._replace(term=max(had.term, charter.term), vote=vote, quarantined=quarantined)
        )
    raft = recovery.new_raft(config.name, end, index, configuration=configuration, settings=_settings_of(config))
    return Opened(wal, storage, end, raft, index, charter)


async def _begin_anew(config: Config, directory: DataDir, disk: Disk, charter: Charter, damage: Damaged) -> Charter:
    """Move what is damaged aside; return the charter of a node in quarantine. Raises the damage if nobody can help."""
    members = {*charter.latest.members, *charter.configuration.members, *(m.name for m in config.initial_cluster)}
    if not members - {config.name}:
        raise damage
    salvaged = await asyncio.to_thread(salvage, directory.wal, disk)
    anew = charter._replace(
        configuration=charter.latest if charter.latest.members else charter.configuration,
        index=0,
        is_quarantined=True,
        term=max(charter.term, salvaged.hard_state.term),
    )
    # First it is said that the log begins anew: if that is cut short, the damage is found and moved once more.
    await asyncio.to_thread(directory.write_charter, charters.encode(anew), log_created=False)
    moved = await asyncio.to_thread(directory.set_aside, ["wal", "snapshots"], _label())
    log.error(Event.DAMAGE_SET_ASIDE, error=str(damage), moved=", ".join(map(str, moved)))
    return anew


def set_aside_snapshots(directory: DataDir, paths: Sequence[Path], reason: str) -> None:
    """Move damaged snapshots away, so that nobody begins with them. Blocks; raises DiskFailed."""
    moved = directory.set_aside([f"{path.parent.name}/{path.name}" for path in paths], _label())
    log.error(Event.DAMAGE_SET_ASIDE, error=reason, moved=", ".join(map(str, moved)))


def _label() -> str:
    return str(time_ns() // 1_000_000)


def _settings_of(config: Config) -> Settings:
    election_ticks = config.election_timeout_ms // TICK_MS
    return Settings(
        heartbeat_ticks=max(1, config.heartbeat_interval_ms // TICK_MS),
        election_ticks_min=election_ticks,
        election_ticks_max=election_ticks * 3 // 2,
        read_lease=config.read_mode == "lease",
    )
