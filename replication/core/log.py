"""The log as the core sees it: its positions, the term of every index, and the newest entries.

Positions, each inclusive::

    base ≤ applied ≤ committed ≤ last        base: what is at or before it is known as a snapshot only
    durable ≤ handed_out ≤ last              committed may be ahead of durable: others hold the entry then
    memory_first .. last                     in memory; what is between base and memory_first is on disk only

Terms are kept as runs (first index, term), so that the term of every index from ``base_index`` on is known without the
disk: a log has as many runs as it has seen leaders.

Guarantees: an entry stays in memory until it is durable and applied; beyond that at most ``retain_bytes`` of payload
are kept for peers that lag. Nothing committed is ever replaced.
Leaves to the caller: replaying committed entries of earlier runs, which are on disk only (``replay_end``).
Reference: Raft thesis, sections 3.5 (log matching) and 5.1 (compaction).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from replication.core.messages import Entry, EntryKind

CONFIGURATION = EntryKind.CONFIGURATION


class RaftLog:
    """Positions, terms and newest entries of one node's log."""

    __slots__ = (
        "applied",
        "applied_bytes",
        "base_index",
        "base_term",
        "committed",
        "configuration_indexes",
        "durable",
        "entries",
        "handed_out",
        "last_index",
        "last_term",
        "memory_first",
        "retain_bytes",
        "run_starts",
        "run_terms",
        "unapplied_bytes",
    )

    def __init__(
        self,
        last_index: int,
        last_term: int,
        applied: int,
        *,
        committed: int | None = None,
        runs: Sequence[tuple[int, int]] = (),
        configuration_indexes: Sequence[int] = (),
    ) -> None:
        # runs: (first index, term) in order, the first one where the log is known from: the snapshot's last index, or
        # the oldest entry on disk. Without them nothing but the end is known, and a peer behind it needs a snapshot.
        # configuration_indexes: where the membership changes stand that are on disk.
        known = list(runs) or [(last_index, last_term)]
        if known[0][0] == 1:
            known.insert(0, (0, 0))
        assert known[0][0] <= applied or not runs
        assert known[-1][0] <= last_index
        assert known[-1][1] == last_term
        self.base_index, self.base_term = known[0]
        """The oldest index whose term is known; entries after it can be had from memory or disk."""
        self.run_starts = [start for start, _ in known]
        self.run_terms = [term for _, term in known]
        assert self.run_starts == sorted(set(self.run_starts))
        assert self.run_terms == sorted(self.run_terms)
        self.entries: list[Entry] = []
        self.memory_first = last_index + 1
        """Index of ``entries[0]``, or the next index if there are none."""
        self.last_index = last_index
        self.last_term = last_term
        self.handed_out = last_index
        """Entries up to here were given to the driver for the disk."""
        self.durable = last_index
        """Entries up to here are on this node's disk."""
        self.applied = applied
        self.committed = applied if committed is None else committed
        assert self.applied <= self.committed <= last_index
        self.configuration_indexes = [index for index in configuration_indexes if applied < index <= last_index]
        """Where the membership changes stand that are not applied, in order."""
        self.unapplied_bytes = 0
        """Payload bytes of the entries in memory that are not applied."""
        self.applied_bytes = 0
        """Payload bytes of the entries in memory that are applied."""
        self.retain_bytes = 0
        """How large ``applied_bytes`` may become; 0 where there is no peer to keep entries for."""

    # -- what it holds ------------------------------------------------------------------------------------------------

    def term_of(self, index: int) -> int | None:
        """Return the term of the entry at ``index``, or None before the base and after the end."""
        if not self.base_index <= index <= self.last_index:
            return None
        if index >= self.run_starts[-1]:
            return self.run_terms[-1]
        return self.run_terms[bisect_right(self.run_starts, index) - 1]

    def last_of_term_at_most(self, index: int, term: int) -> tuple[int, int]:
        """Return the last position up to ``index`` whose term is at most ``term``, as (index, term).

        Where two logs differ at ``index``, they cannot agree at any position after the one returned. The base is
        returned at the latest, and ``index`` itself with term 0 where it is before the base.
        """
        if index < self.base_index:
            return index, 0
        index = min(index, self.last_index)
        run = bisect_right(self.run_starts, index) - 1
        while run and self.run_terms[run] > term:
            index = self.run_starts[run] - 1
            run -= 1
        return (index, self.run_terms[run]) if self.run_terms[run] <= term else (self.base_index, self.base_term)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Tell whether a log that ends so may lead this one (thesis, section 3.6.1)."""
        return last_term > self.last_term or (last_term == self.last_term and last_index >= self.last_index)

    def sliced(self, first: int, bytes_max: int) -> tuple[list[Entry], int]:
        """Return entries in memory from ``first`` on and their payload bytes: at least one, up to ``bytes_max``."""
        assert first >= self.memory_first
        entries = self.entries[first - self.memory_first :]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry[4])
            if size > bytes_max and count:
                return entries[:count], size - len(entry[4])
        return entries, size

    def is_small(self, first: int, bytes_max: int) -> bool:
        """Tell whether the entries from ``first`` on are in memory, and their payload is smaller than ``bytes_max``."""
        start = first - self.memory_first
        if start < 0:
            return False
        size = 0
        for entry in self.entries[start:]:
            size += len(entry[4])
            if size >= bytes_max:
                return False
        return bytes_max > 0

    @property
    def replay_end(self) -> int:
        """The last committed entry that the driver has to read from disk and apply first; ``applied`` if none."""
        return max(self.applied, min(self.committed, self.memory_first - 1))

    @property
    def has_unapplied_configuration(self) -> bool:
        """Whether a committed membership change is not applied."""
        return bool(self.configuration_indexes) and self.configuration_indexes[0] <= self.committed

    # -- growing ------------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        term, index, kind, _, payload = entry
        assert index == self.last_index + 1
        if term != self.last_term:
            assert term > self.last_term
            self.run_starts.append(index)
            self.run_terms.append(term)
            self.last_term = term
        self.entries.append(entry)
        self.last_index = index
        self.unapplied_bytes += len(payload)
        if kind == CONFIGURATION:
            self.configuration_indexes.append(index)

    def first_conflict(self, entries: list[Entry]) -> int:
        """Return how many of ``entries`` are in the log already; they follow an entry that is known to match."""
        for count, entry in enumerate(entries):
            if entry.index > self.last_index or self.term_of(entry.index) != entry.term:
                return count
        return len(entries)

    def truncate(self, last_index: int) -> None:
        """Drop everything after ``last_index``: a leader has other entries there."""
        assert self.committed <= last_index
        assert self.base_index <= last_index < self.last_index
        if last_index + 1 < self.memory_first:
            self.memory_first = last_index + 1
        kept = last_index + 1 - self.memory_first
        self.unapplied_bytes -= sum(len(entry.payload) for entry in self.entries[kept:])
        del self.entries[kept:]
        while self.run_starts[-1] > last_index:
            self.run_starts.pop()
            self.run_terms.pop()
        while self.configuration_indexes and self.configuration_indexes[-1] > last_index:
            self.configuration_indexes.pop()
        self.last_index = last_index
        self.last_term = self.run_terms[-1]
        self.handed_out = min(self.handed_out, last_index)
        self.durable = min(self.durable, last_index)

    def restore(self, last_index: int, last_term: int) -> None:
        """Begin anew behind a snapshot that is durable and holds more than is committed here."""
        assert last_index > self.committed
        retain_bytes = self.retain_bytes
        RaftLog.__init__(self, last_index, last_term, last_index)
        self.retain_bytes = retain_bytes

    # -- to the disk, and to the state machine ------------------------------------------------------------------------

    def take_unpersisted(self) -> list[Entry]:
        """Return the entries that the driver has not yet been given, and remember that it has."""
        count = self.last_index - self.handed_out
        self.handed_out = self.last_index
        return self.entries[-count:] if count else []

    def became_durable(self, last_index: int) -> None:
        """Learn that what was handed out up to ``last_index`` is on disk."""
        assert last_index <= self.handed_out
        if last_index > self.durable:
            self.durable = last_index

    def commit(self, index: int) -> bool:
        """Learn that everything up to ``index`` is committed; return whether that is news."""
        assert index <= self.last_index
        if index <= self.committed:
            return False
        self.committed = index
        return True

    def take_committed(self) -> list[Entry]:
        """Return the committed entries that are to be applied now, in order, and count them as applied.

        Returns nothing while older ones wait on disk to be replayed (``replay_end``).
        """
        applied = self.applied
        count = self.committed - applied
        start = applied + 1 - self.memory_first
        if count <= 0 or start < 0:
            return []
        taken = self.entries[start : start + count]
        self.applied = self.committed
        size = 0
        for entry in taken:
            size += len(entry[4])
        self.unapplied_bytes -= size
        self.applied_bytes += size
        if self.applied_bytes > self.retain_bytes or not self.retain_bytes:
            self._drop_applied()
        return taken

    def replayed(self, index: int) -> None:
        """Count the next committed entry, which the driver has read from disk, as applied."""
        assert index == self.applied + 1
        assert index <= self.replay_end
        self.applied = index

    def compact(self, index: int) -> None:
        """Learn that the driver holds entries up to ``index`` no more, but a snapshot that covers them."""
        assert index <= self.applied
        term = self.term_of(index)
        if index <= self.base_index or term is None:
            return
        run = bisect_right(self.run_starts, index) - 1
        self.run_starts[: run + 1] = [index]
        self.run_terms[: run + 1] = [term]
        self.base_index = index
        self.base_term = term

    def _drop_applied(self) -> None:
        """Drop the oldest applied and durable entries until an eighth of what may be retained is free again.

        The eighth keeps this rare: to delete at the front of a list costs as much as the list is long.
        """
        droppable = min(self.applied, self.durable) + 1 - self.memory_first
        if not self.retain_bytes and droppable == len(self.entries):
            self.entries.clear()
            self.memory_first = self.last_index + 1
            self.applied_bytes = 0
            return
        enough = self.retain_bytes * 7 // 8
        size = self.applied_bytes
        count = 0
        while count < droppable and (size > enough or not self.retain_bytes):
            size -= len(self.entries[count].payload)
            count += 1
        del self.entries[:count]
        self.memory_first += count
        self.applied_bytes = size
