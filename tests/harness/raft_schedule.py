"""Consensus cores under a random schedule: messages lost, repeated and out of order, crashes, slow and lost disks.

Each member is a shipped ``Raft`` with a driver that keeps the order of its docstring, on a disk that keeps what was
finished when the member crashed. The schedule checks throughout what Raft promises (thesis, figure 3.2): one leader
a term, logs that match, committed entries that never change and that every later leader has, a majority of disks behind
every commitment, and no read before what was committed when it came.
Guarantees: the same seed gives the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from replication.core.membership import Change, ChangeKind, Configuration
from replication.core.messages import Entry, EntryKind, InstallSnapshot
from replication.core.raft import Raft, Role, Settings
from replication.errors import NotLeading, Overloaded
from tests.harness.raft_schedule_members import STAMP_MS, Disk, Letter, Member

NAMES = ("a", "b", "c", "d", "e")
SETTINGS = Settings(
    heartbeat_ticks=2,
    election_ticks_min=8,
    election_ticks_max=12,
    append_bytes_max=40,
    inflight_messages_max=4,
    inflight_bytes_max=100,
    coalesce_bytes=20,
    uncommitted_bytes_max=400,
    memory_bytes_max=60,
)
"""Small, so that every bound is met."""


def check_complete(raft: Raft, entry: Entry, committed_in: int) -> None:
    """Check that a leader has an entry that was committed in an earlier term (leader completeness)."""
    if committed_in < raft.term and entry.index >= raft.log.base_index:
        assert raft.log.term_of(entry.index) == entry.term, f"the leader {raft.name} has not the committed {entry}"


def told(member: Member) -> str:
    """Tell the state of a member in a line."""
    raft, log = member.raft, member.raft.log
    positions = f"applied {log.applied} committed {log.committed} durable {log.durable} last {log.last_index}"
    quarantine = f" quarantined until {raft.lost_commit_index}" if raft.is_quarantined else ""
    members = f"voters {raft.configuration.voters} outgoing {raft.configuration.outgoing}"
    return (
        f"{member.name} {raft.role.value} term {raft.term} leader {raft.leader} {positions}{quarantine} {members} "
        f"learners {raft.configuration.learners} {raft.progress} lost {raft.lost_peers}"
    )


class Schedule:
    """A group, its network, and the chance that moves them."""

    def __init__(
        self, seed: int, voters: int, *, settings: Settings = SETTINGS, changes: bool = False, losses: bool = False
    ) -> None:
        self.chance = random.Random(seed)
        self.settings = settings
        self.with_changes = changes
        self.with_losses = losses
        self.letters: list[Letter] = []
        self.cut: set[str] = set()
        """Members that are cut off from the others."""
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}
        """The term in which each entry was first seen to be committed; a leader of an earlier one need not have it."""
        self.leaders: dict[int, str] = {}
        self.proposed = 0
        self.reads = 0
        self.is_last_proposed = False
        self.members: dict[str, Member] = {}
        self.founding = Configuration(NAMES[:voters])
        for name in NAMES if changes else NAMES[:voters]:
            self.members[name] = Member(name, Disk(self.founding), self)

    # -- what the members tell ----------------------------------------------------------------------------------------

    def was_applied(self, member: Member, entry: Entry) -> None:
        """Check an applied entry against what others have applied there."""
        if entry.index not in self.committed:
            self.committed[entry.index] = entry
            self.committed_in[entry.index] = member.raft.term
            for leading in self.leading():
                check_complete(leading.raft, entry, member.raft.term)
        known = self.committed[entry.index]
        assert known == entry, f"{member.name} applies {entry}, others {known}"
        self.check_majority(member, entry)

    def was_restored(self, snapshot: InstallSnapshot) -> None:
        """Check that a snapshot ends with a committed entry."""
        known = self.committed.get(snapshot.last_index)
        assert known is None or known.term == snapshot.last_term

    def check_majority(self, member: Member, entry: Entry) -> None:
        """Check that a majority of the voters has the entry on disk, or had it and is known to have lost it."""
        configuration = member.raft.configuration
        if entry.kind == EntryKind.CONFIGURATION or self.with_changes:
            return
        holders = sum(
            self.members[name].disk.holds(entry.index, entry.term) or self.members[name].disk.hard_state.quarantined
            for name in configuration.voters
        )
        assert holders > len(configuration.voters) // 2, f"{entry} is applied, and on {holders} disks"

    def check(self) -> None:
        """Check leaders and logs."""
        for member in self.members.values():
            raft = member.raft
            if not member.is_up or raft.role is not Role.LEADER:
                continue
            if raft.term not in self.leaders:
                self.leaders[raft.term] = raft.name
                for entry in self.committed.values():
                    check_complete(raft, entry, self.committed_in[entry.index])
            assert self.leaders[raft.term] == raft.name, f"{self.leaders} and {raft.name} lead term {raft.term}"

    def check_logs(self) -> None:
        """Check that two logs with the same entry are the same up to it (log matching)."""
        logs = [member.raft.log for member in self.members.values() if member.is_up]
        for count, one in enumerate(logs):
            for other in logs[:count]:
                first = max(one.base_index, other.base_index)
                index = min(one.last_index, other.last_index)
                while index >= first and one.term_of(index) != other.term_of(index):
                    index -= 1
                for earlier in range(first, index):
                    assert one.term_of(earlier) == other.term_of(earlier), (one.run_starts, other.run_starts)

    # -- what happens -------------------------------------------------------------------------------------------------

    def up(self) -> list[Member]:
        """Return the members that run."""
        return [member for member in self.members.values() if member.is_up]

    def run(self, steps: int) -> None:
        """Let ``steps`` random things happen."""
        pick = self.chance.choice
        actions: list[tuple[int, Callable[[], None]]] = [
            (400, self.deliver_one),
            (pick((100, 400)), self.tick_one),
            (pick((30, 80, 200)), self.finish_one),
            (pick((20, 60)), self.propose_one),
            (20, self.read_one),
            (40, self.fetch_one),
            (pick((0, 3, 15, 40)), self.drop_one),
            (pick((0, 3, 15)), self.repeat_one),
            (pick((3, 10)), self.compact_one),
            (pick((1, 5, 20)), self.crash_one),
            (pick((15, 40)), self.restart_one),
            (pick((0, 2, 6)), self.reset_one),
            (pick((0, 1, 4)), self.transfer_one),
            (pick((0, 3, 8)), self.cut_one),
            (5, self.mend),
            (pick((0, 5, 20)), self.campaign_one),
            (pick((0, 2, 5)), self.settle),
        ]
        if self.with_changes:
            actions.append((pick((3, 10)), self.change_one))
        if self.with_losses:
            actions.append((3, self.lose_one))
        weights = [weight for weight, _ in actions]
        chosen = self.chance.choices([action for _, action in actions], weights, k=steps)
        for number, action in enumerate(chosen):
            action()
            self.check()
            if number % 50 == 0:
                self.check_logs()

    def deliver_one(self) -> None:
        """Deliver any message whose way is not cut, often the oldest."""
        if self.letters:
            position = 0 if self.chance.random() < 0.6 else self.chance.randrange(len(self.letters))
            letter = self.letters.pop(position)
            if (letter.sender in self.cut) is (letter.receiver in self.cut):
                self.deliver(letter)
            else:
                self.letters.append(letter)

    def campaign_one(self) -> None:
        """Let a member campaign long before its time."""
        for member in self.chance.sample(self.up(), k=min(1, len(self.up()))):
            member.raft.campaign()
            member.advance()

    def cut_one(self) -> None:
        """Cut a leader or another member, sometimes two, off from the others; what is on its way is late or lost."""
        leading = [member.name for member in self.leading()]
        count = 2 if len(self.members) > 3 and self.chance.random() < 0.5 else 1
        self.cut = set(self.chance.sample(sorted(self.members), k=count))
        if leading and self.chance.random() < 0.7:
            self.cut.add(self.chance.choice(leading))
        if self.chance.random() < 0.5:
            for letter in self.letters[:-5]:
                self.drop(letter)

    def mend(self) -> None:
        """End a cut."""
        self.cut = set()

    def deliver(self, letter: Letter) -> None:
        """Hand a message to its receiver, if that runs; tell the sender how a snapshot got on."""
        receiver = self.members[letter.receiver]
        if receiver.is_up:
            receiver.receive(letter)
            receiver.advance()
        sender = self.members[letter.sender]
        if isinstance(letter.message, InstallSnapshot) and sender.is_up and sender.life == letter.sender_life:
            sender.raft.snapshot_sent(letter.receiver, receiver.is_up)
            sender.advance()

    def tick_one(self) -> None:
        """Let time pass for a member."""
        for member in self.chance.sample(self.up(), k=min(1, len(self.up()))):
            member.raft.tick()
            member.advance()

    def finish_one(self) -> None:
        """Let a disk be done with one or several writes."""
        busy = [member for member in self.up() if member.writes]
        if busy:
            member = self.chance.choice(busy)
            member.finish_some_writes(self.chance.randint(1, len(member.writes)))
            member.advance()

    def leading(self) -> list[Member]:
        """Return the members that believe they lead."""
        return [member for member in self.up() if member.raft.role is Role.LEADER]

    def propose_one(self) -> None:
        """Propose a command to a leader."""
        for member in self.leading():
            self.proposed += 1
            try:
                member.raft.propose(EntryKind.COMMANDS, STAMP_MS, b"%d" % self.proposed * self.chance.randint(1, 5))
            except (NotLeading, Overloaded):
                continue
            if self.chance.random() < 0.8:
                member.advance()

    def read_one(self) -> None:
        """Ask a leader for a read, which has to see all that is committed anywhere by now."""
        for member in self.leading():
            self.reads += 1
            member.read_floors[self.reads] = max(other.raft.log.committed for other in self.members.values())
            member.raft.read_index(self.reads)
            if self.chance.random() < 0.8:
                member.advance()

    def fetch_one(self) -> None:
        """Let a disk answer a fetch."""
        for member in self.up():
            if member.fetches:
                member.answer_fetch()
                member.advance()

    def drop_one(self) -> None:
        """Lose a message."""
        if self.letters:
            self.drop(self.chance.choice(self.letters))

    def drop(self, letter: Letter) -> None:
        """Lose ``letter``; of a snapshot the sender learns that it did not arrive."""
        self.letters.remove(letter)
        sender = self.members[letter.sender]
        if isinstance(letter.message, InstallSnapshot) and sender.is_up and sender.life == letter.sender_life:
            sender.raft.snapshot_sent(letter.receiver, False)
            sender.advance()

    def repeat_one(self) -> None:
        """Put a copy of a message on its way."""
        if self.letters and len(self.letters) < 200:
            self.letters.append(self.chance.choice(self.letters))

    def compact_one(self) -> None:
        """Let a member write a snapshot."""
        for member in self.chance.sample(self.up(), k=min(1, len(self.up()))):
            member.compact()

    def crash_one(self) -> None:
        """Kill a member, often a leader; some of its peers notice."""
        candidates = self.leading() or self.up()
        if candidates and len(self.up()) > len(self.members) // 2:
            member = self.chance.choice(candidates)
            member.crash()
            for peer in self.up():
                if self.chance.random() < 0.7:
                    peer.raft.peer_unreachable(member.name)
                    peer.advance()

    def restart_one(self) -> None:
        """Start a member that was killed."""
        down = [member for member in self.members.values() if not member.is_up]
        if down:
            member = self.chance.choice(down)
            member.start()
            member.advance()

    def reset_one(self) -> None:
        """Reset a connection, or forget a leader for no reason."""
        if len(self.up()) >= 2:
            one, other = self.chance.sample(self.up(), k=2)
            one.raft.peer_unreachable(other.name)
            if self.chance.random() < 0.3:
                one.raft.forget_leader()
            one.advance()

    def transfer_one(self) -> None:
        """Hand over leadership."""
        for member in self.leading():
            others = [name for name in member.raft.configuration.voters if name != member.name]
            if others:
                member.raft.transfer(self.chance.choice(others))
                member.advance()

    def change_one(self) -> None:
        """Propose a change of members: one step, or several at once."""
        for member in self.leading():
            changes = [
                Change(self.chance.choice([*ChangeKind][:4]), self.chance.choice(NAMES), "x:1")
                for _ in range(self.chance.randint(1, 3))
            ]
            try:
                member.raft.propose_change(changes, STAMP_MS)
            except (NotLeading, ValueError):
                continue
            member.advance()

    def lose_one(self) -> None:
        """Replace the disk of a member, as long as fewer than a majority have lost theirs."""
        in_quarantine = [member for member in self.members.values() if member.disk.hard_state.quarantined]
        if len(in_quarantine) < (len(self.founding.voters) - 1) // 2 and self.chance.random() < 0.4:
            member = self.chance.choice([*self.members.values()])
            member.disk = Disk(self.founding, quarantined=True)
            member.start()
            member.advance()

    # -- healing ------------------------------------------------------------------------------------------------------

    def heal(self, rounds: int = 400) -> None:
        """Let nothing fail any more, and check that the group agrees on a new entry within ``rounds`` ticks."""
        self.mend()
        for member in self.members.values():
            if not member.is_up:
                member.start()
            member.raft.stamp_ms = STAMP_MS
        for _ in range(rounds):
            self.settle()
            if self.is_agreed():
                self.check_logs()
                return
            for member in self.members.values():
                member.raft.tick()
                member.advance()
        raise AssertionError("\n".join(["no agreement", *map(told, self.members.values())]))

    def settle(self) -> None:
        """Deliver and write everything there is where nothing is cut, a bounded number of times."""
        for _ in range(30):
            letters, self.letters = self.letters, []
            late = [letter for letter in letters if (letter.sender in self.cut) is not (letter.receiver in self.cut)]
            for letter in letters:
                if (letter.sender in self.cut) is (letter.receiver in self.cut):
                    self.deliver(letter)
            for member in self.up():
                while member.writes:
                    member.finish_write()
                    member.advance()
                while member.fetches:
                    member.answer_fetch()
                    member.advance()
            self.check()
            is_quiet = not self.letters
            self.letters += late
            if is_quiet:
                return

    def is_agreed(self) -> bool:
        """Tell whether there is a leader and every member of its configuration has applied all that it has."""
        leading = self.leading()
        if not leading:
            return False
        leader = max(leading, key=lambda member: member.raft.term)
        if not self.is_last_proposed:
            try:
                leader.raft.propose(EntryKind.COMMANDS, STAMP_MS, b"last words")
            except NotLeading:
                return False
            self.is_last_proposed = True
            leader.advance()
            return False
        log = leader.raft.log
        return all(
            self.members[name].raft.log.applied == log.last_index and not self.members[name].raft.is_quarantined
            for name in leader.raft.configuration.members
        )
