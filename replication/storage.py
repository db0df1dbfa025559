"""The Raft log on disk: entries, hard state and commit marks as records of the write-ahead log.

Layout, integers little endian; the kind of the record, what its index is, and its body:

    1 entry       index of the entry            kind u8, term u64, stamp_ms u64, payload
    2 hard state  index of the last entry       term u64 with QUARANTINED_BIT, vote (UTF-8)
    3 commit      index known to be committed   empty
    4 restart     last index of a snapshot      term u64 of the snapshot: the log goes on behind it, all before is void

An entry whose index is not after the last one replaces the tail from there. A commit mark is written only in a frame
that is written anyway, behind the entries that it covers.

Guarantees: ``recover`` returns the last hard state, the end of the log and the term of every index in it; ``entries``
gives back the entry of each index once, in order: of all that the log holds for an index, the one whose term is right.
An entry that is known to have been written and is not found raises Damaged.
Leaves to the caller: what is committed, and that a snapshot is durable before ``restart`` names it.
Reference: Raft thesis, sections 3.5 (an index and a term name one entry) and 5.1 (the log behind a snapshot).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from persistence.errors import Damaged
from persistence.record import WalRecord
from persistence.wal import Wal
from replication.core.messages import Entry, EntryKind, HardState

ENTRY_RECORD = 1
HARD_STATE_RECORD = 2
COMMIT_RECORD = 3
RESTART_RECORD = 4

QUARANTINED_BIT = 1 << 63
"""In the term of a hard state: a term never gets that far."""

_ENTRY = Struct("<BQQ")
_TERM = Struct("<Q")


class LogEntry(NamedTuple):
    """A record of the log, decoded for people: ``redan log`` prints it."""

    kind: str
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    term: int
    stamp_ms: int
    payload: bytes


class LogEnd(NamedTuple):
    """What the log holds behind its snapshot."""

    last_index: int
    last_term: int
    hard_state: HardState
    last_stamp_ms: int = 0
    """The latest stamp that an entry was given."""
    commit_index: int = 0
    """What is known to be committed: at least the snapshot."""
    term_runs: tuple[tuple[int, int], ...] = ()
    """(first index, term) of each run of entries of one term, in order, from the oldest entry that is there on; where
    the log begins behind the snapshot, the snapshot itself is the first."""
    configurations: tuple[Entry, ...] = ()
    """The membership changes behind the snapshot, committed or not."""


def encode_entry(entry: Entry) -> WalRecord:
    """Return the record of an entry."""
    return WalRecord(ENTRY_RECORD, entry.index, _ENTRY.pack(entry.kind, entry.term, entry.stamp_ms) + entry.payload)


def decode_entry(record: WalRecord) -> Entry:
    """Return the entry of a record of kind 1."""
    kind, term, stamp_ms = _ENTRY.unpack_from(record.body)
    return Entry(term, record.index, kind, stamp_ms, record.body[_ENTRY.size :])


def encode_hard_state(hard_state: HardState, last_index: int) -> WalRecord:
    """Return the record of a hard state."""
    term = hard_state.term | QUARANTINED_BIT if hard_state.quarantined else hard_state.term
    return WalRecord(HARD_STATE_RECORD, last_index, _TERM.pack(term) + hard_state.vote.encode())


def decode_hard_state(record: WalRecord) -> HardState:
    """Return the hard state of a record of kind 2."""
    term = _TERM.unpack_from(record.body)[0]
    vote = record.body[_TERM.size :].decode()
    return HardState(term & ~QUARANTINED_BIT, vote, bool(term & QUARANTINED_BIT))


def decode_restart(record: WalRecord) -> tuple[int, int]:
    """Return index and term of the snapshot behind which the log goes on, of a record of kind 4."""
    return record.index, _TERM.unpack_from(record.body)[0]


ENTRY_KIND_NAMES = {0: "noop", 1: "commands", 2: "configuration"}


def decode_record(record: WalRecord) -> LogEntry:
    """Return any record of the log in readable form; kinds unknown here are named by their number."""
    if record.kind == ENTRY_RECORD:
        entry = decode_entry(record)
        name = ENTRY_KIND_NAMES.get(entry.kind, f"kind-{entry.kind}")
        return LogEntry(name, entry.index, entry.term, entry.stamp_ms, entry.payload)
    if record.kind == HARD_STATE_RECORD:
        hard_state = decode_hard_state(record)
        name = "hard-state-quarantined" if hard_state.quarantined else "hard-state"
        return LogEntry(name, record.index, hard_state.term, 0, hard_state.vote.encode())
    if record.kind == COMMIT_RECORD:
        return LogEntry("commit", record.index, 0, 0, b"")
    if record.kind == RESTART_RECORD:
        index, term = decode_restart(record)
        return LogEntry("restart-behind-snapshot", index, term, 0, b"")
    return LogEntry(f"record-{record.kind}", record.index, 0, 0, record.body)


class TermRuns:
    """The term of every index of the log: (first index, term) of each run of entries of one term, in order.

    Invariant: indexes and terms increase. Bound: one run an election whose leader appended something.
    """

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    @property
    def last_term(self) -> int:
        """Term of the last run; 0 without any."""
        return self.runs[-1][1] if self.runs else 0

    def note(self, index: int, term: int) -> None:
        """Learn that the entry at ``index``, behind all others, is of ``term``."""
        if not self.runs or self.runs[-1][1] != term:
            self.runs.append((index, term))

    def cut(self, index: int) -> None:
        """Forget everything from ``index`` on."""
        while self.runs and self.runs[-1][0] >= index:
            self.runs.pop()

    def term_of(self, index: int) -> int | None:
        """Return the term of ``index``, or None where the log does not reach back to it."""
        position = bisect_right(self.runs, index, key=_first_index)
        return self.runs[position - 1][1] if position else None


def _first_index(run: tuple[int, int]) -> int:
    return run[0]


class Storage:
    """The log of one consensus group in one write-ahead log."""

    def __init__(self, wal: Wal) -> None:
        self.wal = wal
        self.last_index = 0
        self._terms = TermRuns()
        """Of what was appended, durable or not."""
        self._last_term = 0
        self._marked = 0
        """The newest commit index that the log holds."""
        self._restart: WalRecord | None = None
        """To be written in front of the next append."""

    def recover(self, snapshot_index: int, snapshot_term: int) -> LogEnd:
        """Read the whole log once; return its end, the last hard state and what is known to be committed.

        Raises Damaged if the log does not reach back to the snapshot, has a gap, or ends before what was committed.
        """
        if self.wal.first_index > snapshot_index + 1:
            raise self._damaged(_gap(self.wal.first_index, snapshot_index))
        scan = _Scan(snapshot_index, snapshot_term)
        try:
            for record in self.wal.records(0):
                scan.read(record)
            end = scan.end()
        except _InconsistentError as error:
            raise self._damaged(str(error)) from None
        self.last_index, self._last_term = end.last_index, end.last_term
        self._terms.runs = list(end.term_runs)
        self._marked = end.commit_index
        return end

    def _damaged(self, reason: str) -> Damaged:
        return Damaged(str(self.wal.directory), 0, reason)

    def append(self, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int) -> None:
        """Queue hard state and entries for the disk; the log's ``on_durable(token)`` reports them durable.

        ``commit_index``: what is known to be committed, at most the last entry; 0 to write no mark. Hot.
        """
        records = [encode_entry(entry) for entry in entries]
        if entries:
            last_term, last_index, _, _, _ = entries[-1]
            if last_term != self._last_term or last_index != self.last_index + len(entries):
                self._note_terms(entries)
                self._last_term = last_term
            self.last_index = last_index
        if hard_state is not None:
            records.insert(0, encode_hard_state(hard_state, self.last_index))
        if self._restart is not None:
            records.insert(0, self._restart)
            self._restart = None
        if commit_index > self._marked:
            self._marked = commit_index
            records.append(WalRecord(COMMIT_RECORD, commit_index, b""))
        self.wal.append(records, token)

    def _note_terms(self, entries: list[Entry]) -> None:
        """Learn the terms of entries that begin a new one, or take the place of others."""
        assert entries[0].index <= self.last_index + 1, "entries leave a hole in the log"
        self._terms.cut(entries[0].index)
        for entry in entries:
            self._terms.note(entry.index, entry.term)

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        """Go on behind a received snapshot: every entry is void. Written with the next append, in front of it.

        The snapshot has to be durable: from that append on the log alone does not reach back.
        """
        self._restart = WalRecord(RESTART_RECORD, snapshot_index, _TERM.pack(snapshot_term))
        self._terms.runs = [(snapshot_index, snapshot_term)]
        self.last_index, self._last_term = snapshot_index, snapshot_term
        self._marked = max(self._marked, snapshot_index)

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        """Read entries [from_index, to_index] from disk, in order; fewer if the last are not written yet.

        May run in any thread. Raises Damaged where one that was written is not found, DiskFailed.
        """
        terms = TermRuns()
        terms.runs = list(self._terms.runs)
        written = min(to_index, self.wal.last_index)
        wanted = from_index
        for record in self.wal.records(from_index):
            # An index may be there several times, replaced and even put back: index and term name one content.
            if record.kind == ENTRY_RECORD and record.index == wanted:
                entry = decode_entry(record)
                if entry.term == terms.term_of(wanted):
                    yield entry
                    wanted += 1
                    if wanted > to_index:
                        return
        if wanted <= written:
            raise self._damaged(f"the entry {wanted} is not there, though the log was written up to {written}")

    def bytes_from(self, index: int) -> int:
        """Return about how many bytes the log holds from ``index`` on: whole segments, the one with it included."""
        return self.wal.bytes_from(index)

    def purge(self, before_index: int) -> None:
        """Drop whole segments whose entries are all before ``before_index``."""
        self.wal.purge(before_index)


class _InconsistentError(Exception):
    """The records, each of them sound, do not make one log."""


def _gap(index: int, end: int) -> str:
    return f"the log continues at index {index}, but snapshot and log end at {end}"


class _Scan:
    """The reading of a whole log at a start: what each record, in the order written, makes of the log.

    A  the index follows the last one                                     it is appended
    B  the index is not after the last one                                it replaces the tail from there
    C  the index leaves a hole that the snapshot covers                   the log goes on behind the hole
    D  the index leaves another hole                                      inconsistent: entries are missing
    E  a restart behind this snapshot or an older one                     what was read is void
    F  a restart behind a newer snapshot                                  inconsistent: that snapshot is missing
    G  at the end, the snapshot's index is there with another term        what is behind it is void: the snapshot was
                                                                          received, and a crash hit before the restart
    """

    def __init__(self, snapshot_index: int, snapshot_term: int) -> None:
        self._snapshot = snapshot_index, snapshot_term
        self._terms = TermRuns()
        self._last_index = 0
        self._hard_state = HardState(snapshot_term, "")
        self._last_stamp_ms = 0
        self._committed = 0
        self._configurations: list[Entry] = []

    def read(self, record: WalRecord) -> None:
        """Take the next record."""
        if record.kind == ENTRY_RECORD:
            self._read_entry(decode_entry(record))
        elif record.kind == HARD_STATE_RECORD:
            self._hard_state = decode_hard_state(record)
        elif record.kind == COMMIT_RECORD:
            self._committed = max(self._committed, record.index)
        elif record.kind == RESTART_RECORD:
            index, term = decode_restart(record)
            if index > self._snapshot[0]:
                raise _InconsistentError(
                    f"the log begins behind a snapshot at index {index}, but the newest one is at {self._snapshot[0]}"
                )
            self._terms.runs = [(index, term)]
            self._last_index = index
            self._configurations.clear()

    def _read_entry(self, entry: Entry) -> None:
        index, snapshot_index = entry.index, self._snapshot[0]
        if index <= self._last_index:
            self._terms.cut(index)
            while self._configurations and self._configurations[-1].index >= index:
                self._configurations.pop()
        elif index > self._last_index + 1:
            if index > snapshot_index + 1:
                raise _InconsistentError(_gap(index, max(self._last_index, snapshot_index)))
            self._terms.runs.clear()
        self._terms.note(index, entry.term)
        self._last_index = index
        if entry.kind == EntryKind.CONFIGURATION and index > snapshot_index:
            self._configurations.append(entry)
        if index > snapshot_index:
            self._last_stamp_ms = max(self._last_stamp_ms, entry.stamp_ms)

    def end(self) -> LogEnd:
        """Return what the log holds behind the snapshot."""
        snapshot_index, snapshot_term = self._snapshot
        runs, last_index = self._terms, self._last_index
        term_there = runs.term_of(snapshot_index)
        if term_there is None and runs.runs and runs.runs[0][1] >= snapshot_term:
            # Purged up to the snapshot, so its term is not told; but terms never step back.
            later = runs.runs[1:] if runs.runs[0][1] == snapshot_term else runs.runs
            runs.runs = [(snapshot_index, snapshot_term), *later]
        elif term_there != snapshot_term or last_index < snapshot_index:
            runs.runs = [(snapshot_index, snapshot_term)]
            last_index = snapshot_index
            self._configurations.clear()
        if self._committed > last_index:
            reason = f"entries up to {self._committed} were committed, but the log ends at {last_index}"
            raise _InconsistentError(reason)
        hard_state = self._hard_state
        if hard_state.term < runs.last_term:
            hard_state = hard_state._replace(term=runs.last_term, vote="")
        return LogEnd(
            last_index,
            runs.last_term,
            hard_state,
            self._last_stamp_ms,
            max(self._committed, snapshot_index),
            tuple(runs.runs),
            tuple(self._configurations),
        )
