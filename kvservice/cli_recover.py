"""`redan recover`: when a majority is lost for good, make a cluster of one out of a node that is left.

Order: directory locked → log and snapshots checked → what is there is shown → a configuration with this node alone is
appended, in a term of its own → the directory gets a new cluster identity.

Guarantees: nothing is changed without ``--yes``, nor when anything is damaged; but a torn tail is cut, as by any start.
What this node has of the log stays, also what was not known to be committed. The new identity keeps the lost members
from coming back into this cluster: they would bring another past with them.
Leaves to the caller: being sure that the others are gone. What was acknowledged and never reached this node is lost.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from kvservice.cli_settings import EXIT_CLEAN, EXIT_DATA_DIRECTORY, EXIT_FAILURE, EXIT_USAGE
from kvservice.cluster import charter as charters
from kvservice.cluster.charter import Charter
from persistence.data_dir import SALT_BYTES, DataDir, read_meta
from persistence.disk import RealDisk
from persistence.errors import DiskFailed, StorageError
from persistence.snapshot import SnapshotReader, newest_valid
from persistence.wal import Wal, WalOptions
from replication.core import membership
from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind
from replication.storage import LogEnd, Storage

DISK_SECONDS: Final = 60.0
TOKEN: Final = 1


class Found(NamedTuple):
    """What the directory holds."""

    wal: Wal
    storage: Storage
    end: LogEnd
    snapshot_index: int
    stamp_ms: int
    members: Configuration


def recover_command(path: Path, name: str, *, is_confirmed: bool) -> int:
    """Run the command; return its exit code."""
    disk = RealDisk()
    try:
        meta = read_meta(path, disk)
        if meta is None or not meta.charter:
            print(f"redan: {path}: no node of a cluster has used this directory", file=sys.stderr)
            return EXIT_FAILURE
        if meta.identity != name.encode():
            print(f"redan: {path} belongs to the node {meta.identity.decode(errors='replace')}", file=sys.stderr)
            return EXIT_USAGE
        with DataDir.open(path, disk, identity=meta.identity, make_salt=lambda: meta.salt) as directory:
            return _recover(directory, disk, name, is_confirmed=is_confirmed)
    except StorageError as error:
        print(f"redan: {error}", file=sys.stderr)
        return EXIT_FAILURE if isinstance(error, DiskFailed) else EXIT_DATA_DIRECTORY


def _recover(directory: DataDir, disk: RealDisk, name: str, *, is_confirmed: bool) -> int:
    try:
        charter = charters.decode(directory.charter)
    except ValueError as error:
        print(f"redan: {directory.path}/META: {error}", file=sys.stderr)
        return EXIT_DATA_DIRECTORY
    found = _read(directory, disk, charter)
    is_done = False
    try:
        _describe(found, charter, name)
        if not is_confirmed:
            print("redan: nothing was changed; add --yes to do it", file=sys.stderr)
            return EXIT_USAGE
        alone = Configuration((name,), addresses={name: found.members.addresses.get(name, "")})
        _append(found, name, alone)
        is_done = True
    finally:
        found.wal.close(seal=is_done)
    cluster_id = os.urandom(SALT_BYTES).hex()
    renewed = charter._replace(
        cluster_id=cluster_id, founders={name: directory.salt.hex()}, is_quarantined=False, latest=alone
    )
    directory.write_charter(charters.encode(renewed))
    print(f"{name} is a cluster of one now, with the identity {cluster_id}; start it, and let new nodes join it")
    return EXIT_CLEAN


def _read(directory: DataDir, disk: RealDisk, charter: Charter) -> Found:
    """Open the log and find the newest snapshot, as a start does. Raises StorageError."""
    wal, _ = Wal.open(directory.wal, disk, WalOptions(), salt=directory.salt, must_exist=directory.log_created)
    try:
        choice = newest_valid(directory.snapshots, disk, log_first_index=wal.first_index)
        index = term = stamp_ms = 0
        members = charter.configuration
        if choice.newest is not None:
            with SnapshotReader.open(choice.newest.path, disk) as reader:
                index, term, stamp_ms = reader.meta.last_index, reader.meta.last_term, reader.meta.stamp_ms
                if reader.meta.configuration and index > charter.index:
                    members = membership.decode(reader.meta.configuration)
        storage = Storage(wal)
        end = storage.recover(index, term)
    except BaseException:
        wal.close(seal=False)
        raise
    if end.configurations:
        members = membership.decode(end.configurations[-1].payload)
    return Found(wal, storage, end, index, max(stamp_ms, end.last_stamp_ms), members)


def _describe(found: Found, charter: Charter, name: str) -> None:
    end = found.end
    print(f"cluster {charter.cluster_id}, members {', '.join(found.members.members)}; this is {name}")
    print(f"snapshot of entry {found.snapshot_index}, log up to entry {end.last_index} of term {end.last_term}")
    uncertain = end.last_index - end.commit_index
    if uncertain:
        print(
            f"the last {uncertain} entries are not known here to have been committed; they are kept, so writes may "
            "appear that nobody was told about"
        )
    print("what other members acknowledged and this node never got is lost")
    if end.hard_state.quarantined or charter.is_quarantined:
        print("this node was in quarantine: its disk had lost entries that it had acknowledged, and they are lost too")


def _append(found: Found, name: str, alone: Configuration) -> None:
    """Append the configuration, committed by its one voter. Raises StorageError."""
    end = found.end
    term = max(end.hard_state.term, end.last_term) + 1
    entry = Entry(term, end.last_index + 1, EntryKind.CONFIGURATION, found.stamp_ms, membership.encode(alone))
    durable = Event()
    failures: list[DiskFailed] = []

    def failed(error: DiskFailed) -> None:
        failures.append(error)
        durable.set()

    found.wal.start(lambda _token: durable.set(), failed)
    hard_state = end.hard_state._replace(term=term, vote=name, quarantined=False)
    found.storage.append(hard_state, [entry], entry.index, TOKEN)
    if not durable.wait(DISK_SECONDS):
        raise DiskFailed("write", str(found.wal.directory), 0, f"it took more than {DISK_SECONDS:.0f} s")
    if failures:
        raise failures[0]
