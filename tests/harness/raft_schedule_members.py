"""Members of a random schedule: a shipped ``Raft`` each, its driver, and a disk that keeps what a crash leaves.

The driver keeps the order of the core's docstring: persist, send, report, apply. Writes finish when the schedule says
so.
Leaves to the schedule: when anything happens, and checking what is told to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind, Fetch, HardState, InstallSnapshot, Message, Ready
from replication.core.raft import Raft

if TYPE_CHECKING:
    from tests.harness.raft_schedule import Schedule

STAMP_MS = 7


class Letter(NamedTuple):
    """A message on its way, with the life of its sender and of its receiver."""

    sender: str
    sender_life: int
    receiver: str
    message: Message


class Write(NamedTuple):
    """A Ready on its way to the disk."""

    ready: Ready
    term: int
    last_index: int
    last_term: int
    commit_index: int


class Image(NamedTuple):
    """A snapshot file."""

    last_index: int
    last_term: int
    configuration: Configuration


class Disk:
    """What a crash leaves."""

    def __init__(self, configuration: Configuration, *, quarantined: bool = False) -> None:
        self.hard_state = HardState(0, "", quarantined)
        self.image = Image(0, 0, configuration)
        self.first_index = 1
        self.base_term = 0
        self.entries: list[Entry] = []
        self.commit_index = 0

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot where there is none."""
        return self.first_index + len(self.entries) - 1

    def holds(self, index: int, term: int) -> bool:
        """Tell whether the entry is here, or covered by the snapshot."""
        if index <= self.image.last_index or index < self.first_index:
            return True
        return index <= self.last_index and self.entries[index - self.first_index].term == term

    def term_of(self, index: int) -> int:
        """Return the term of an entry that is here, or of the one before the first."""
        return self.base_term if index == self.first_index - 1 else self.entries[index - self.first_index].term

    def between(self, first: int, last: int) -> list[Entry]:
        """Return the entries from ``first`` to ``last``."""
        return self.entries[first - self.first_index : last + 1 - self.first_index] if first <= last else []

    def finish(self, write: Write) -> None:
        """Make a write durable."""
        ready = write.ready
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.snapshot is not None:
            self.begin_behind_image(ready.snapshot.last_index, ready.snapshot.last_term)
        if ready.entries:
            first = ready.entries[0].index
            assert self.first_index <= first <= self.last_index + 1
            del self.entries[first - self.first_index :]
            self.entries += ready.entries
        self.commit_index = max(self.commit_index, write.commit_index)

    def begin_behind_image(self, index: int, term: int) -> None:
        """Drop the log: it goes on behind a received snapshot."""
        self.first_index = index + 1
        self.base_term = term
        self.entries = []

    def recover(self) -> RaftLog:
        """Return the log as a restart finds it."""
        image = self.image
        if image.last_index > self.last_index or self.term_of(image.last_index) != image.last_term:
            self.begin_behind_image(image.last_index, image.last_term)
        runs = [(self.first_index - 1, self.base_term)]
        for entry in self.entries:
            if entry.term != runs[-1][1]:
                runs.append((entry.index, entry.term))
        committed = max(image.last_index, min(self.commit_index, self.last_index))
        changes = [entry.index for entry in self.entries if entry.kind == EntryKind.CONFIGURATION]
        return RaftLog(
            self.last_index,
            runs[-1][1],
            image.last_index,
            committed=committed,
            runs=runs,
            configuration_indexes=changes,
        )

    def compact(self, image: Image, up_to: int) -> None:
        """Write a snapshot and drop entries up to ``up_to``."""
        self.image = image
        if up_to >= self.first_index:
            self.base_term = self.term_of(up_to)
            del self.entries[: up_to + 1 - self.first_index]
            self.first_index = up_to + 1


class Member:
    """A core, its driver and its disk."""

    def __init__(self, name: str, disk: Disk, schedule: Schedule) -> None:
        self.name = name
        self.disk = disk
        self.schedule = schedule
        self.life = 0
        self.peer_lives: dict[str, int] = {}
        self.is_up = False
        self.start()

    def start(self) -> None:
        """Start from the disk."""
        self.life += 1
        self.is_up = True
        self.writes: list[Write] = []
        self.fetches: list[Fetch] = []
        self.read_floors: dict[int, int] = {}
        log = self.disk.recover()
        chance = self.schedule.chance
        self.raft = Raft(
            self.name,
            self.schedule.settings,
            self.disk.hard_state,
            self.disk.image.configuration,
            log,
            chance.randrange,
        )
        self.raft.stamp_ms = STAMP_MS
        self.apply()

    def crash(self) -> None:
        """Lose everything but the disk."""
        self.is_up = False

    def advance(self) -> None:
        """Do the driver's duties until there are none."""
        for _ in range(100):
            ready = self.raft.ready()
            if ready is not None:
                self.take(ready)
            if not self.apply() and ready is None:
                return
        raise AssertionError("the core never comes to rest")

    def take(self, ready: Ready) -> None:
        """Begin the write of a Ready, send what need not wait, answer reads."""
        raft = self.raft
        if ready.snapshot is not None:
            self.disk.image = Image(*ready.snapshot[1:])
            self.schedule.was_restored(ready.snapshot)
        self.send(ready.messages)
        self.writes.append(Write(ready, raft.term, raft.log.last_index, raft.log.last_term, raft.log.committed))
        self.fetches += ready.fetches
        for context, index in ready.reads:
            assert index >= self.read_floors.pop(context), "a stale read"
        for context in ready.lost_reads:
            del self.read_floors[context]

    def apply(self) -> bool:
        """Apply what is committed, first from the disk what was there at the start; return whether there was any."""
        log = self.raft.log
        entries = self.disk.between(log.applied + 1, log.replay_end)
        for entry in entries:
            self.raft.replayed(entry)
        entries += self.raft.take_committed()
        for entry in entries:
            self.schedule.was_applied(self, entry)
        return bool(entries)

    def send(self, messages: list[tuple[str, Message]]) -> None:
        """Put messages on their way; a snapshot goes as what the newest file holds."""
        for peer, message in messages:
            sent = message
            if isinstance(message, InstallSnapshot):
                assert self.disk.image.last_index >= message.last_index
                sent = InstallSnapshot(message.term, *self.disk.image)
            self.schedule.letters.append(Letter(self.name, self.life, peer, sent))

    def finish_write(self) -> None:
        """Make the oldest write durable, and send what waited for it."""
        write = self.writes.pop(0)
        self.disk.finish(write)
        self.send(write.ready.messages_after)
        self.raft.persisted(write.term, write.last_index, STAMP_MS, write.last_term)

    def finish_some_writes(self, count: int) -> None:
        """Make the oldest ``count`` writes durable with one report for all."""
        writes = self.writes[:count]
        del self.writes[:count]
        for write in writes:
            self.disk.finish(write)
            self.send(write.ready.messages_after)
        last = writes[-1]
        self.raft.persisted(last.term, last.last_index, STAMP_MS, last.last_term)

    def receive(self, letter: Letter) -> None:
        """Take a message, unless its sender has started anew since."""
        if letter.sender_life < self.peer_lives.get(letter.sender, 0):
            return
        self.peer_lives[letter.sender] = letter.sender_life
        self.raft.step(letter.sender, letter.message)

    def answer_fetch(self) -> None:
        """Read entries from the disk for a peer: all, some, or none if they are gone."""
        fetch = self.fetches.pop(0)
        chance = self.schedule.chance
        disk = self.disk
        entries: list[Entry] = []
        if fetch.from_index >= disk.first_index:
            entries = disk.between(fetch.from_index, fetch.to_index)[: chance.randint(1, 4)]
        self.raft.fetched(fetch.peer, fetch.from_index, entries)

    def compact(self) -> None:
        """Write a snapshot of what is applied, and drop a part of the log before it."""
        log = self.raft.log
        term = log.term_of(log.applied)
        if self.writes or log.applied <= self.disk.image.last_index or log.applied > self.disk.last_index:
            return
        assert term is not None
        image = Image(log.applied, term, self.raft.configuration)
        up_to = self.schedule.chance.randint(self.disk.first_index - 1, log.applied)
        self.disk.compact(image, up_to)
        log.compact(up_to)
