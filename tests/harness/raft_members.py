"""Consensus cores with disks and a network of plain lists, moved by hand: the stage for tests/scripts/raft.

Each member is a shipped ``Raft`` with the driver's duties done in the order of its docstring. Every step is told as a
line to ``tell``. Nothing happens by itself: no time passes, no message arrives, unless asked for.
Leaves to the caller: what to do, and the bound on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import Entry, HardState, InstallSnapshot, Message, Ready
from replication.core.raft import Raft, Role, Settings
from tests.harness import raft_words

Tell = Callable[[str], None]
STAMP_MS = 0
STEPS_MAX = 200
"""Readies of one member in one go; more means that it never comes to rest."""


class SnapshotReport(NamedTuple):
    """What the driver of the sender learns of a snapshot that it has streamed."""

    ok: bool


class Letter(NamedTuple):
    """A message on its way."""

    sender: str
    receiver: str
    content: Message | SnapshotReport

    @property
    def kind(self) -> str:
        """What ``deliver kind=`` selects by."""
        return "report" if isinstance(self.content, SnapshotReport) else raft_words.kind(self.content)

    def told(self) -> str:
        """Tell the message in a line."""
        if isinstance(self.content, SnapshotReport):
            return f"{self.sender} -> {self.receiver} report: snapshot {'arrived' if self.content.ok else 'failed'}"
        return f"{self.sender} -> {self.receiver} {raft_words.message(self.content)}"


class Write(NamedTuple):
    """A Ready on its way to the disk, and the positions to report when it is there."""

    ready: Ready
    term: int
    last_index: int
    last_term: int
    commit_index: int


class Disk:
    """What survives a crash of one member."""

    def __init__(self, hard_state: HardState, snapshot: InstallSnapshot, entries: Iterable[Entry]) -> None:
        self.hard_state = hard_state
        self.snapshot = snapshot
        """The newest; there is always one, at index 0 if nothing else."""
        self.first_index = snapshot.last_index + 1
        """Entries before this one are deleted."""
        self.entries = list(entries)
        self.commit_index = snapshot.last_index

    @property
    def last_index(self) -> int:
        """The last position that is stored."""
        return self.entries[-1].index if self.entries else max(self.first_index - 1, self.snapshot.last_index)

    def store(self, write: Write) -> None:
        """Make a write durable; a snapshot that was received begins the log anew."""
        if write.ready.snapshot is not None:
            self.snapshot = write.ready.snapshot
            self.first_index = self.snapshot.last_index + 1
            self.entries = []
            self.commit_index = self.snapshot.last_index
        if write.ready.hard_state is not None:
            self.hard_state = write.ready.hard_state
        if write.ready.entries:
            kept = write.ready.entries[0].index - self.first_index
            assert 0 <= kept <= len(self.entries), "a hole in the log"
            self.entries[kept:] = write.ready.entries
        self.commit_index = max(self.commit_index, min(write.commit_index, self.last_index))

    def between(self, first: int, last: int) -> list[Entry]:
        """Return stored entries, both ends included; none if the first is deleted."""
        return self.entries[first - self.first_index : last + 1 - self.first_index] if first >= self.first_index else []

    def log(self) -> RaftLog:
        """Return the log as a core finds it at its start."""
        snapshot = self.snapshot
        base = self.first_index - 1
        runs = [(base, snapshot.last_term if base == snapshot.last_index else self.base_term)]
        for term, run in groupby(self.entries, lambda entry: entry.term):
            if term != runs[-1][1]:
                runs.append((next(run).index, term))
        committed = max(snapshot.last_index, min(self.commit_index, self.last_index))
        return RaftLog(self.last_index, runs[-1][1], snapshot.last_index, committed=committed, runs=runs)

    base_term = 0
    """Term of the entry before ``first_index``, where the snapshot is not the one that ends there."""

    def compact(self, index: int) -> None:
        """Delete entries up to ``index``, which the snapshot covers."""
        assert self.first_index <= index <= self.snapshot.last_index
        self.base_term = self.entries[index - self.first_index].term
        del self.entries[: index + 1 - self.first_index]
        self.first_index = index + 1


class Member:
    """A core, its disk, and the writes in between."""

    def __init__(self, name: str, settings: Settings, disk: Disk, tell: Tell) -> None:
        self.name = name
        self.disk = disk
        self.settings = settings
        self.chance_value = 0
        """What chance answers, as far as it fits: 0 is the shortest election timeout."""
        self.is_disk_slow = False
        self.is_apply_held = False
        self.writes: list[Write] = []
        self._tell = tell
        self.start()

    def start(self) -> None:
        """Start from the disk."""
        snapshot = self.disk.snapshot
        self.writes = []
        self.raft = Raft(
            self.name, self.settings, self.disk.hard_state, snapshot.configuration, self.disk.log(), self._chance
        )
        self.raft.stamp_ms = STAMP_MS
        self._shown = self._state()
        self._replay()

    def advance(self) -> list[Letter]:
        """Do the driver's duties until there are none; return what is to be sent."""
        letters: list[Letter] = []
        self._show_state()
        for _ in range(STEPS_MAX):
            ready = self.raft.ready()
            if ready is not None:
                letters += self._take(ready)
            applied = self.apply()
            if ready is None and not applied:
                return letters
        raise AssertionError(f"{self.name} never comes to rest")

    def finish_write(self) -> list[Letter]:
        """Make the oldest write durable; return what waited for it."""
        write = self.writes.pop(0)
        self.disk.store(write)
        letters = self._posted(write.ready.messages_after)
        self.raft.persisted(write.term, write.last_index, STAMP_MS, write.last_term)
        self._show_state()
        return letters

    def apply(self) -> bool:
        """Apply what is committed; return whether there was something."""
        if self.is_apply_held:
            return False
        self._replay()
        entries = self.raft.take_committed()
        if entries:
            self._tell(f"{self.name} applies {raft_words.entries(entries)}")
            self._show_state()
        return bool(entries)

    def receive(self, letter: Letter) -> None:
        """Take a message."""
        content = letter.content
        if isinstance(content, SnapshotReport):
            self.raft.snapshot_sent(letter.sender, content.ok)
        else:
            self.raft.step(letter.sender, content)
        self._show_state()

    def _replay(self) -> None:
        log = self.raft.log
        first, last = log.applied + 1, log.replay_end
        if first <= last:
            self._tell(f"{self.name} applies {first} to {last} from disk")
        for entry in self.disk.between(first, last):
            self.raft.replayed(entry)

    def _take(self, ready: Ready) -> list[Letter]:
        raft = self.raft
        if ready.snapshot is not None:
            self._tell(f"{self.name} restores snapshot {ready.snapshot.last_index}/{ready.snapshot.last_term}")
        if ready.hard_state is not None:
            quarantine = ", quarantined" if ready.hard_state.quarantined else ""
            self._tell(
                f"{self.name} stores term {ready.hard_state.term}, vote {ready.hard_state.vote or '-'}{quarantine}"
            )
        if ready.entries:
            self._tell(f"{self.name} stores {raft_words.entries(ready.entries)}")
        for context, index in ready.reads:
            self._tell(f"{self.name} may serve read {context} at {index}")
        for context in ready.lost_reads:
            self._tell(f"{self.name} has lost read {context}")
        letters = self._posted(ready.messages)
        self.writes.append(Write(ready, raft.term, raft.log.last_index, raft.log.last_term, raft.log.committed))
        if not self.is_disk_slow:
            while self.writes:
                letters += self.finish_write()
        for peer, first, last in ready.fetches:
            self._tell(f"{self.name} reads {first} to {last} from disk for {peer}")
            raft.fetched(peer, first, self.disk.between(first, last))
        return letters

    def _posted(self, messages: Sequence[tuple[str, Message]]) -> list[Letter]:
        return [Letter(self.name, peer, message) for peer, message in messages]

    def _chance(self, count: int) -> int:
        return min(self.chance_value, count - 1)

    def _state(self) -> str:
        raft = self.raft
        if raft.role is Role.LEADER:
            return f"leads term {raft.term}"
        if raft.role is Role.CANDIDATE:
            return f"{'asks before' if raft.is_pre_vote else 'is a candidate in'} term {raft.term + raft.is_pre_vote}"
        return f"follows {raft.leader or 'nobody'} in term {raft.term}"

    def _show_state(self) -> None:
        state = self._state()
        if state != self._shown:
            self._shown = state
            self._tell(f"{self.name} {state}")


class Group:
    """Members and the messages between them."""

    def __init__(self, tell: Tell) -> None:
        self.members: dict[str, Member] = {}
        self.letters: list[Letter] = []
        """On their way, oldest first."""
        self.cut: set[tuple[str, str]] = set()
        """(sender, receiver) of links that lose everything."""
        self._tell = tell

    def add(self, name: str, settings: Settings, disk: Disk) -> None:
        """Add a member; it belongs to the group that its own disk tells it of."""
        assert name not in self.members
        self.members[name] = Member(name, settings, disk, self._tell)

    def advance(self, name: str) -> None:
        """Let one member do all that it has to do."""
        self.post(self.members[name].advance())

    def post(self, letters: Iterable[Letter]) -> None:
        """Put messages on their way, except those over links that are cut."""
        for letter in letters:
            is_lost = (letter.sender, letter.receiver) in self.cut or letter.receiver not in self.members
            self._tell(letter.told() + (" (lost)" if is_lost else ""))
            if not is_lost:
                self.letters.append(letter)
            elif letter.kind == "snapshot":
                self.letters.append(Letter(letter.receiver, letter.sender, SnapshotReport(ok=False)))

    def take(self, is_wanted: Callable[[Letter], bool]) -> list[Letter]:
        """Take messages off their way."""
        taken = [letter for letter in self.letters if is_wanted(letter)]
        self.letters = [letter for letter in self.letters if not is_wanted(letter)]
        return taken

    def deliver(self, letter: Letter, is_newest: bool = True) -> None:
        """Hand a message over; of a snapshot, the newest that the sender has by now, or the one that was meant."""
        content = letter.content
        if isinstance(content, InstallSnapshot):
            newest = self.members[letter.sender].disk.snapshot
            assert newest.last_index >= content.last_index
            if is_newest:
                letter = letter._replace(content=newest._replace(term=content.term))
            self.members[letter.receiver].receive(letter)
            self.post([Letter(letter.receiver, letter.sender, SnapshotReport(ok=True))])
        else:
            self.members[letter.receiver].receive(letter)

    def stabilize(self, names: Sequence[str]) -> None:
        """Let these members act and hear each other until they come to rest."""
        for _ in range(STEPS_MAX):
            for name in names:
                self.advance(name)
            letters = self.take(lambda letter: letter.sender in names and letter.receiver in names)
            if not letters:
                return
            for letter in letters:
                self.deliver(letter)
        raise AssertionError("the group never comes to rest")

    def configuration_of(self, name: str) -> Configuration:
        """Return the members as ``name`` has applied them."""
        return self.members[name].raft.configuration
