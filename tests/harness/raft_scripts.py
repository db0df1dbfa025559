"""Stories of a consensus group as text files: commands, and what the members say and do.

Layout of a script::

    # A comment.
    > add-nodes 3
    > campaign n1
    > stabilize
    n1 stores term 1, vote n1
    …

What follows a command, up to an empty line, a comment or the next command, is all that it makes happen. Words of a
command: names, ``key=value``, ``key=(several values)``, and text in double quotes. ``quietly`` before a command leaves
out what happens. The commands are the methods of ``Story``; each says what it takes.

Guarantees: ``rewritten`` changes nothing but what follows the commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from replication.core.membership import Change, ChangeKind, Configuration
from replication.core.messages import Entry, EntryKind, HardState, InstallSnapshot
from replication.core.raft import Raft, Role, Settings
from replication.errors import ReplicationError
from tests.harness import raft_words
from tests.harness.raft_members import STAMP_MS, Disk, Group, Letter

_WORD = re.compile(r'([\w-]+)=\(([^)]*)\)|([\w-]+)=([^\s"(]\S*)|"([^"]*)"|([^\s"=]+)')
_RUN = re.compile(r"(\d+)x(\d+)")
FLAGS: Final = {"yes": True, "no": False}
CHANGES: Final = {
    "add": ChangeKind.ADD_LEARNER,
    "promote": ChangeKind.PROMOTE,
    "demote": ChangeKind.DEMOTE,
    "remove": ChangeKind.REMOVE,
}


class Words(NamedTuple):
    """A command line, cut."""

    name: str
    plain: list[str]
    """Words without a key, in order."""
    keyed: list[tuple[str, list[str]]]
    """``key=value`` in order; a key may come more than once."""

    def values(self, key: str) -> list[str] | None:
        """Return what ``key`` was given, or None."""
        return next((values for known, values in self.keyed if known == key), None)

    def number(self, key: str, default: int) -> int:
        """Return the number, yes (1) or no (0) that ``key`` was given."""
        values = self.values(key)
        return default if values is None else FLAGS[values[0]] if values[0] in FLAGS else int(values[0])


def cut(line: str) -> Words:
    """Return the words of a command line."""
    name, _, rest = line.partition(" ")
    words = Words(name, [], [])
    for listed, values, key, value, quoted, plain in _WORD.findall(rest):
        if listed:
            words.keyed.append((listed, values.split()))
        elif key:
            words.keyed.append((key, [value]))
        else:
            words.plain.append(plain or quoted)
    return words


class Story:
    """One script's group, and what has happened since the last command."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.group = Group(self.told.append)
        self.commands: dict[str, Callable[[Words], None]] = {
            "add-nodes": self.add_nodes,
            "apply": self.apply,
            "campaign": self.campaign,
            "compact": self.compact,
            "crash": self.crash,
            "cut": self.cut,
            "deliver": self.deliver,
            "drop": self.drop,
            "finish-write": self.finish_write,
            "forget-leader": self.forget_leader,
            "heal": self.heal,
            "hold-apply": self.hold_apply,
            "leave-joint": self.leave_joint,
            "lose-disk": self.lose_disk,
            "messages": self.messages,
            "process-ready": self.ready,
            "propose": self.propose,
            "propose-change": self.propose_change,
            "raft-log": self.raft_log,
            "read-index": self.read_index,
            "set-chance": self.set_chance,
            "slow-disk": self.slow_disk,
            "snapshot": self.snapshot,
            "stabilize": self.stabilize,
            "state": self.state,
            "status": self.status,
            "tick": self.tick,
            "tick-election": self.tick_election,
            "tick-heartbeat": self.tick_heartbeat,
            "transfer": self.transfer,
            "unreachable": self.unreachable,
        }

    def play(self, line: str) -> list[str]:
        """Carry out a command; return what happened."""
        self.told.clear()
        words = cut(line.removeprefix("quietly "))
        try:
            self.commands[words.name](words)
        except (ReplicationError, ValueError) as error:
            return [f"refused, {type(error).__name__}: {error}".removesuffix(": ")]
        return [] if line.startswith("quietly ") else list(self.told)

    # -- who there is -------------------------------------------------------------------------------------------------

    def add_nodes(self, words: Words) -> None:
        """COUNT [voters=(…)] [learners=(…)] [index=I term=T] [log=1x3,2x1] [commit=I] [any of Settings].

        The next names n1, n2 … begin with a snapshot of these members at I/T, and with the terms of ``log`` behind it;
        without ``voters``, these names are the voters. ``voters=()`` is a node that knows nobody.
        """
        first = len(self.group.members) + 1
        names = [f"n{number}" for number in range(first, first + int(words.plain[0]))]
        voters = words.values("voters")
        configuration = Configuration(
            tuple(names if voters is None else voters), learners=tuple(words.values("learners") or ())
        )
        index, term = words.number("index", 0), words.number("term", 0)
        snapshot = InstallSnapshot(term, index, term if index else 0, configuration)
        entries: list[Entry] = []
        for run_term, count in _RUN.findall(",".join(words.values("log") or [])):
            for _ in range(int(count)):
                at = index + len(entries) + 1
                entries.append(Entry(int(run_term), at, EntryKind.COMMANDS, STAMP_MS, b"old"))
        if entries and not term:
            term = entries[-1].term
        given: dict[str, Any] = {key: words.number(key, 0) for key in Settings._fields if words.values(key)}
        # Every append for itself, unless the story is about those that wait for others.
        settings = Settings(**{"coalesce_bytes": 0, **given})
        for name in names:
            disk = Disk(HardState(term, ""), snapshot, entries)
            disk.commit_index = words.number("commit", index)
            self.group.add(name, settings, disk)

    def crash(self, words: Words) -> None:
        """NAME…: forget all but the disk, and start again; messages to it are lost."""
        for name in words.plain:
            self.group.take(lambda letter, name=name: letter.receiver == name)  # type: ignore[misc]
            self.group.members[name].start()
        self.state(words)

    def lose_disk(self, words: Words) -> None:
        """NAME [keep=I] [forget-term=yes]: lose what is stored after I, and start again in quarantine."""
        (name,) = words.plain
        disk = self.group.members[name].disk
        keep = words.number("keep", disk.snapshot.last_index)
        del disk.entries[keep + 1 - disk.first_index :]
        disk.commit_index = min(disk.commit_index, keep)
        disk.hard_state = HardState(0 if words.number("forget-term", 0) else disk.hard_state.term, "", True)
        self.crash(words)

    def set_chance(self, words: Words) -> None:
        """NAME NUMBER: what chance answers: 0 is the shortest timeout."""
        self.group.members[words.plain[0]].chance_value = int(words.plain[1])

    # -- what comes in ------------------------------------------------------------------------------------------------

    def campaign(self, words: Words) -> None:
        """NAME."""
        self._raft(words).campaign()

    def tick(self, words: Words) -> None:
        """NAME COUNT: let so many ticks pass."""
        for _ in range(int(words.plain[1])):
            self._raft(words).tick()

    def tick_heartbeat(self, words: Words) -> None:
        """NAME: let the time between two heartbeats pass."""
        for _ in range(self._raft(words).settings.heartbeat_ticks):
            self._raft(words).tick()

    def tick_election(self, words: Words) -> None:
        """NAME: let the election timeout pass that the node has drawn; for a leader, the shortest one."""
        raft = self._raft(words)
        is_leader = raft.role is Role.LEADER
        for _ in range(raft.settings.election_ticks_min if is_leader else raft.election_timeout):
            raft.tick()

    def propose(self, words: Words) -> None:
        """NAME TEXT [size=BYTES] [times=N]."""
        size = words.number("size", 0)
        for _ in range(words.number("times", 1)):
            payload = b"x" * size if size else words.plain[1].encode()
            self._raft(words).propose(EntryKind.COMMANDS, STAMP_MS, payload)

    def propose_change(self, words: Words) -> None:
        """NAME [add=N] [promote=N] [demote=N] [remove=N] … in this order, [auto-leave=no]."""
        changes = [Change(CHANGES[key], values[0]) for key, values in words.keyed if key in CHANGES]
        self._raft(words).propose_change(changes, STAMP_MS, auto_leave=bool(words.number("auto-leave", 1)))

    def leave_joint(self, words: Words) -> None:
        """NAME."""
        self._raft(words).propose_change([], STAMP_MS)

    def read_index(self, words: Words) -> None:
        """NAME CONTEXT…."""
        for context in words.plain[1:]:
            self._raft(words).read_index(int(context))

    def transfer(self, words: Words) -> None:
        """NAME TO."""
        self._raft(words).transfer(words.plain[1])

    def forget_leader(self, words: Words) -> None:
        """NAME."""
        self._raft(words).forget_leader()

    def unreachable(self, words: Words) -> None:
        """NAME PEER: the connection to the peer was reset."""
        self._raft(words).peer_unreachable(words.plain[1])

    # -- the disk, and the state machine ------------------------------------------------------------------------------

    def slow_disk(self, words: Words) -> None:
        """NAME [yes|no]: keep writes under way until ``finish-write``."""
        self.group.members[words.plain[0]].is_disk_slow = words.plain[1:] != ["no"]

    def finish_write(self, words: Words) -> None:
        """NAME [COUNT]: let the oldest writes become durable."""
        member = self.group.members[words.plain[0]]
        for _ in range(int(words.plain[1]) if len(words.plain) > 1 else 1):
            self.group.post(member.finish_write())

    def hold_apply(self, words: Words) -> None:
        """NAME: do not apply what is committed until ``apply``."""
        self.group.members[words.plain[0]].is_apply_held = True

    def apply(self, words: Words) -> None:
        """NAME: apply what is committed."""
        member = self.group.members[words.plain[0]]
        member.is_apply_held = False
        member.apply()

    def snapshot(self, words: Words) -> None:
        """NAME: take a snapshot of what is applied."""
        member = self.group.members[words.plain[0]]
        applied = member.raft.log.applied
        term = member.raft.log.term_of(applied)
        assert term is not None
        member.disk.snapshot = InstallSnapshot(0, applied, term, member.raft.configuration)

    def compact(self, words: Words) -> None:
        """NAME INDEX: delete entries up to there; takes a snapshot if the newest does not cover them."""
        member = self.group.members[words.plain[0]]
        index = int(words.plain[1])
        if member.disk.snapshot.last_index < index:
            self.snapshot(words)
        member.disk.compact(index)
        member.raft.log.compact(index)

    # -- what goes out ------------------------------------------------------------------------------------------------

    def ready(self, words: Words) -> None:
        """NAME…: store, send, apply."""
        for name in words.plain:
            self.group.advance(name)

    def stabilize(self, words: Words) -> None:
        """[NAME…]: let these, or all, act and hear each other until they come to rest."""
        self.group.stabilize(words.plain or list(self.group.members))

    def deliver(self, words: Words) -> None:
        """NAME… [from=(…)] [kind=(…)] [count=N] [newest-first=yes] [drop=(NAME…)] [keep=yes] [old-snapshot=yes].

        Hand over what is on its way, and leave a copy there with ``keep``; lose what goes to the names in ``drop``.
        """
        dropped = words.values("drop") or []
        left = words.number("count", len(self.group.letters))

        def is_wanted(letter: Letter) -> bool:
            nonlocal left
            left -= (fits := left > 0 and letter.receiver in words.plain and _fits(letter, words))
            return fits

        letters = [letter for letter in self.group.letters if is_wanted(letter)]
        for letter in reversed(letters) if words.number("newest-first", 0) else letters:
            if not words.number("keep", 0):
                self.group.letters.remove(letter)
            self.told.append(letter.told())
            self.group.deliver(letter, is_newest=not words.number("old-snapshot", 0))
        self._lose(lambda letter: letter.receiver in dropped)

    def drop(self, words: Words) -> None:
        """[NAME…] [from=(…)] [kind=(…)]: lose what is on its way to these, or to all."""
        self._lose(lambda letter: (not words.plain or letter.receiver in words.plain) and _fits(letter, words))

    def cut(self, words: Words) -> None:
        """NAME OTHER… [one-way=yes]: lose whatever goes between the first and the others from now on."""
        first, *others = words.plain
        for other in others:
            self.group.cut.add((first, other))
            if not words.number("one-way", 0):
                self.group.cut.add((other, first))

    def heal(self, words: Words) -> None:
        """[NAME…]: end every cut, or those around these."""
        self.group.cut = {
            link for link in self.group.cut if words.plain and link[0] not in words.plain and link[1] not in words.plain
        }

    # -- what there is ------------------------------------------------------------------------------------------------

    def messages(self, words: Words) -> None:
        """Show what is on its way."""
        self.told += [letter.told() for letter in self.group.letters if _fits(letter, words)]

    def state(self, words: Words) -> None:
        """[NAME…]: show role, term and log of these, or of all."""
        for name in words.plain or self.group.members:
            raft = self.group.members[name].raft
            log = raft.log
            role = "pre-candidate" if raft.is_pre_vote else raft.role.value
            notes = (" learner" if raft.is_learner else "") + (" quarantined" if raft.is_quarantined else "")
            self.told.append(
                f"{name} {role}{notes} term {raft.term} vote {raft.vote or '-'} leader {raft.leader or '-'}"
                f" last {log.last_index}/{log.last_term} commit {log.committed} applied {log.applied}"
                f" members {raft_words.members(raft.configuration)}"
            )

    def status(self, words: Words) -> None:
        """NAME: show what the leader knows of its peers."""
        self.told += [f"{peer} {progress!r}" for peer, progress in self._raft(words).progress.items()]

    def raft_log(self, words: Words) -> None:
        """NAME…: show what is on the disk."""
        for name in words.plain:
            disk = self.group.members[name].disk
            runs = ", ".join(map(raft_words.entry, disk.entries))
            behind = f" after {disk.first_index - 1}" if disk.first_index > 1 else ""
            self.told.append(f"{name} log{behind}: {runs or 'empty'}")

    def _raft(self, words: Words) -> Raft:
        return self.group.members[words.plain[0]].raft

    def _lose(self, is_lost: Callable[[Letter], bool]) -> None:
        for letter in self.group.take(is_lost):
            self.told.append(f"{letter.told()} (lost)")


def _fits(letter: Letter, words: Words) -> bool:
    senders, kinds = words.values("from"), words.values("kind")
    return (senders is None or letter.sender in senders) and (kinds is None or letter.kind in kinds)


def rewritten(text: str) -> str:
    """Return the script with what happens now after each command."""
    story = Story()
    lines = text.rstrip("\n").split("\n")
    out: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        out.append(line)
        position += 1
        if line.startswith("> "):
            out += story.play(line[2:])
            while position < len(lines) and lines[position] and not lines[position].startswith(("> ", "#")):
                position += 1
    return "\n".join(out) + "\n"
