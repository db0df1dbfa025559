"""Clients of a cluster of real processes, what they were told, and its judgment.

Callers are threads. Each has one connection at a time, to any node, and one command under way. Two kinds of keys:

cells      of the simulator's ledger: few keys at a time on which all callers meet. Each short history is judged for
           linearizability when it ends (kvservice/simulation/ledger).
journals   one line of keys a caller, which only it appends numbers to and everybody reads. They live as long as the
           load, so a node that answers from a state of long ago is found out, as is a write that is repeated.

What a caller may conclude: an answer is an answer; an error whose prefix says "not applied" is forgotten, and must then
never be seen; ``UNKNOWN``, a broken connection and silence may have happened or not. It repeats nothing.

Guarantees: leaving ``Load`` ends all threads; every wait has a bound; a history that is wrong is kept in build/ and its
path is part of the error.
Leaves to the caller: saying which nodes may be connected to, and calling ``settle`` once the cluster is well again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, Protocol

import hiredis

from kvservice.errors import NotAppliedError, OutcomeUnknownError
from kvservice.simulation.history import Answer, encode_operation
from kvservice.simulation.ledger import Asked, Cell, Ledger
from kvservice.simulation.rules import RuleBroken
from tests.harness.process import POLL_S, ROOT, TIMEOUT_S
from tests.harness.resp2 import encode_command

KEPT: Final = ROOT / "build" / "histories"
CALLERS: Final = 6
READERS: Final = 3
"""Callers that only read journals: never stuck with a write, so there are reads at a leader that is one no more."""
READ_REPLY_S: Final = 0.2
"""After so much silence a reader asks again, so that a leader that was stopped finds reads from after its end."""
PAUSE_S: Final = 0.012
"""Between two commands of a caller: some hundred a second of all, which leaves a shared machine to the nodes."""
REPLY_S: Final = 4.0
"""After so much silence a caller goes elsewhere: longer than any failover, shorter than a test."""
STAY_SHARE: Final = 0.97
"""Of the answers, those after which a caller stays with its node."""
JOURNAL_ENTRIES_MAX: Final = 300
"""Then a caller begins its next key, so that reading one stays cheap."""
NOT_APPLIED: Final = {NotAppliedError.resp_prefix, *(each.resp_prefix for each in NotAppliedError.__subclasses__())}
UNKNOWN: Final = {OutcomeUnknownError.resp_prefix}


class Refused(Exception):  # noqa: N818 - says what is the case
    """The node said that the command was not applied."""


class Lost(Exception):  # noqa: N818 - says what is the case
    """The outcome of a command will never be known; ``is_connected``: the node said so, and goes on serving."""

    def __init__(self, why: str, *, is_connected: bool = False) -> None:
        super().__init__(why)
        self.is_connected = is_connected


class Server(Protocol):
    """Whatever speaks RESP."""

    def connect(self) -> socket.socket:
        """Return a connected socket; raises OSError."""


class Connection:
    """One connection to a node, one command at a time."""

    def __init__(self, server: Server, timeout_s: float = REPLY_S) -> None:
        """Connect; raises OSError."""
        self._socket = server.connect()
        self._socket.settimeout(timeout_s)
        self._reader = hiredis.Reader()

    def ask(self, args: Sequence[bytes]) -> Answer | list[Answer]:
        """Run a command. Raises Refused, Lost, and RuleBroken for an error that nobody may get here."""
        try:
            self._socket.sendall(encode_command(list(args)))
            while (reply := self._reader.gets()) is False:
                received = self._socket.recv(1 << 16)
                if not received:
                    raise Lost("the connection ended")
                self._reader.feed(received)
        except OSError as error:
            raise Lost(str(error)) from error
        if isinstance(reply, hiredis.ReplyError):
            prefix = str(reply).split(" ", 1)[0]
            if prefix in NOT_APPLIED:
                raise Refused(str(reply))
            if prefix in UNKNOWN:
                raise Lost(str(reply), is_connected=True)
            if prefix != "ERR" or "not an integer" not in str(reply):
                raise RuleBroken("no other errors", f"{b' '.join(args)!r} was answered {reply}")
            return b"ERR"
        return reply  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class KeptLedger(Ledger):
    """The simulator's ledger, which keeps the histories that it finds wrong. Its users hold ``lock``."""

    def __init__(self, name: str, random: Random) -> None:
        self.lock = threading.Lock()
        self._name = name
        super().__init__(random)

    def _judge(self, cell: Cell) -> None:
        try:
            super()._judge(cell)
        except RuleBroken as error:
            lines = [encode_operation(operation) for operation in cell.history.operations()]
            path = keep(f"{self._name}-cell{cell.number}.jsonl", "\n".join(lines) + "\n")
            raise RuleBroken("linearizability", f"the history is in {path}\n{error}") from error


class Entries(NamedTuple):
    """What became of the numbers that one caller appended to one key."""

    acknowledged: list[int]
    refused: list[int]

    def fault_of(self, value: bytes, known: int) -> str:
        """Say what is wrong with a value read after ``known`` numbers were acknowledged; empty if nothing is."""
        numbers = [int(part) for part in value.split(b",")[:-1]]
        seen = set(numbers)
        if len(seen) != len(numbers):
            return f"repeated: {sorted(one for one in seen if numbers.count(one) > 1)}"
        if gone := [one for one in self.acknowledged[:known] if one not in seen]:
            return f"acknowledged and missing: {gone}"
        if ghosts := seen.intersection(self.refused):
            return f"refused and there all the same: {sorted(ghosts)}"
        certain = set(self.acknowledged)
        order = [one for one in numbers if one in certain]
        return "" if order == sorted(order) else f"out of order: {order}"


class Journal:
    """The keys that one caller appends to."""

    def __init__(self, caller: str) -> None:
        self.keys: dict[bytes, Entries] = {}
        self._caller = caller
        self._last = 0
        self.current = self._next_key()

    def _next_key(self) -> bytes:
        key = f"journal:{self._caller}:{len(self.keys)}".encode()
        self.keys[key] = Entries([], [])
        return key

    def next(self) -> tuple[bytes, int]:
        """Return the key and number to append."""
        if len(self.keys[self.current].acknowledged) >= JOURNAL_ENTRIES_MAX:
            self.current = self._next_key()
        self._last += 1
        return self.current, self._last


class Load:
    """Callers on all nodes; use it as a context manager."""

    def __init__(self, name: str, nodes: Callable[[], Sequence[Server]], seed: int, callers: int = CALLERS) -> None:
        self.ledger = KeptLedger(name, Random(seed))
        self.failure: BaseException | None = None
        self.acknowledged_at = time.monotonic()
        self.gap_s = 0.0
        """The longest time without an acknowledged write, since it was last set to 0."""
        self.acknowledged = 0
        """Writes that were acknowledged."""
        self.name = name
        self._nodes = nodes
        self._stopping = threading.Event()
        self.callers = [
            Caller(self, number, Random(seed * 100 + number), is_reader=number >= callers)
            for number in range(callers + READERS)
        ]
        self.writers = self.callers[:callers]

    def __enter__(self) -> Load:
        for caller in self.callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_stopping(self) -> bool:
        """Whether the callers are to end."""
        return self._stopping.is_set()

    def nodes(self) -> Sequence[Server]:
        """Return the nodes that a caller may try."""
        return self._nodes()

    def emptiest(self, random: Random, *, of_readers: bool) -> Server | None:
        """Return a node that the fewest callers are on: so there are some on each, and never all on one that fails."""
        taken = Counter(id(caller.server) for caller in self.callers if caller.is_reader == of_readers)
        return min(self.nodes(), key=lambda node: (taken[id(node)], random.random()), default=None)

    def direct(self, nodes: Callable[[], Sequence[Server]]) -> None:
        """Send callers to other nodes, each when it connects the next time."""
        self._nodes = nodes

    def note_acknowledged(self) -> None:
        """Note that a write was acknowledged now; the caller of this holds the lock."""
        now = time.monotonic()
        self.gap_s = max(self.gap_s, now - self.acknowledged_at)
        self.acknowledged_at = now
        self.acknowledged += 1

    def wait_for(self, count: int) -> None:
        """Wait until so many more writes are acknowledged; raises what a caller found wrong."""
        goal = self.acknowledged + count
        deadline = time.monotonic() + TIMEOUT_S
        while self.acknowledged < goal:
            self.raise_failure()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{goal - self.acknowledged} of {count} writes were not acknowledged")
            time.sleep(POLL_S)

    def raise_failure(self) -> None:
        """Raise what a caller found wrong, if there is something."""
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End all callers."""
        self._stopping.set()
        for caller in self.callers:
            caller.join(TIMEOUT_S)
            assert not caller.is_alive(), "a caller hangs"

    def settle(self) -> None:
        """Stop, and judge all that is not judged yet; the cluster has to be well. Raises RuleBroken."""
        self.stop()
        self.raise_failure()
        deadline = time.monotonic() + TIMEOUT_S
        reader = self.callers[0]
        self.ledger.close_all()
        while not self.ledger.is_settled:
            assert time.monotonic() < deadline, "the last reads are not answered"
            asked = self.ledger.last_read("last")
            assert asked is not None, "something waits although no caller does"
            reader.run_asked(asked)
        for caller in self.writers:
            for key in caller.journal.keys:
                while not reader.read_journal(caller, key):
                    assert time.monotonic() < deadline, "the journals are not read"
        reader.leave()
        assert self.ledger.undecided * 100 <= self.ledger.judged, "too many histories were left undecided"

    def __str__(self) -> str:
        ledger = self.ledger
        calls, refused, lost = (sum(counts) for counts in zip(*(caller.counts for caller in self.callers), strict=True))
        refusals = sum((caller.refusals for caller in self.callers), Counter[str]())
        told = "".join(f"; {count} {text}" for text, count in refusals.most_common())
        return (
            f"{calls} calls ({self.acknowledged} writes acknowledged, {refused} refused{told}, {lost} unknown), "
            f"{ledger.judged} histories of {ledger.operations} operations judged, {ledger.undecided} undecided"
        )


class Caller(threading.Thread):
    """One client of the cluster."""

    def __init__(self, load: Load, number: int, random: Random, *, is_reader: bool) -> None:
        super().__init__(daemon=True, name=f"c{number}")
        self.is_reader = is_reader
        self.journal = Journal(self.name)
        self.counts = [0, 0, 0]
        """Commands sent; of them refused, and of unknown outcome; a reader's silence is none."""
        self.refusals: Counter[str] = Counter()
        self._load = load
        self._random = random
        self._connection: Connection | None = None
        self.server: Server | None = None
        """Where it is connected, or tries to be."""

    def run(self) -> None:
        """Call until told to stop."""
        try:
            while not self._load.is_stopping:
                self._call()
                # The rate is bounded on purpose: nothing is waited for here.
                time.sleep(PAUSE_S * 2 * self._random.random())
        except BaseException as error:
            self._load.failure = self._load.failure or error
        finally:
            self.leave()

    def _call(self) -> None:
        chance = self._random.random()
        if self._connected() is None:
            return
        if self.is_reader:
            writer = self._random.choice(self._load.writers)
            self.read_journal(writer, writer.journal.current)
        elif chance < 0.1:
            writer = self._random.choice(self._load.writers)
            self.read_journal(writer, self._random.choice(list(writer.journal.keys)))
        elif chance < 0.25:
            self._append()
        else:
            with self._load.ledger.lock:
                asked = self._load.ledger.last_read(self.name) or self._load.ledger.next(self.name)
            self.run_asked(asked)

    def _connected(self) -> Connection | None:
        """Return the connection, a new one if there is none; None if the chosen node refuses."""
        if self._connection is None:
            self.server = self._load.emptiest(self._random, of_readers=self.is_reader)
            if self.server is None:
                return None
            try:
                self._connection = Connection(self.server, READ_REPLY_S if self.is_reader else REPLY_S)
            except (OSError, KeyError):
                # KeyError: it has not said yet where it listens.
                return None
        return self._connection

    def leave(self) -> None:
        """Close the connection."""
        self.server = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, args: Sequence[bytes]) -> Answer | list[Answer]:
        connection = self._connected()
        if connection is None:
            raise Refused("no connection")
        self.counts[0] += 1
        try:
            answer = connection.ask(args)
        except Refused as refused:
            self.counts[1] += 1
            self.refusals[str(refused)] += 1
            self.leave()
            raise
        except Lost as lost:
            self.counts[2] += not self.is_reader
            if not lost.is_connected:
                self.leave()
            raise
        if self._random.random() > STAY_SHARE:
            self.leave()
        return answer

    def run_asked(self, asked: Asked) -> None:
        """Run an operation of the ledger and tell it the outcome."""
        ledger = self._load.ledger
        try:
            answer = self._ask(asked.args)
        except Refused:
            with ledger.lock:
                ledger.not_applied(asked)
        except Lost:
            with ledger.lock:
                ledger.lost(asked)
        else:
            answers = answer if isinstance(answer, list) else [answer] * len(asked.commands)
            with ledger.lock:
                ledger.answered(asked, answers)
                if not asked.is_read:
                    self._load.note_acknowledged()

    def _append(self) -> None:
        key, number = self.journal.next()
        entries = self.journal.keys[key]
        try:
            self._ask([b"APPEND", key, b"%d," % number])
        except Refused:
            entries.refused.append(number)
        except Lost:
            pass
        else:
            entries.acknowledged.append(number)
            with self._load.ledger.lock:
                self._load.note_acknowledged()

    def read_journal(self, caller: Caller, key: bytes) -> bool:
        """Read what a caller has appended; return whether it was answered. Raises RuleBroken if it is wrong."""
        entries = caller.journal.keys[key]
        known = len(entries.acknowledged)
        try:
            value = self._ask([b"GET", key])
        except (Refused, Lost):
            return False
        assert value is None or isinstance(value, bytes)
        fault = entries.fault_of(value or b"", known)
        if fault:
            told = f"{key!r} {fault}\nvalue {value!r}\nacknowledged {entries.acknowledged}\nrefused {entries.refused}\n"
            path = keep(f"{self._load.name}-{caller.name}.txt", told)
            raise RuleBroken("journals", f"{key.decode()}, {fault}; all of it is in {path}")
        return True


def keep(name: str, text: str) -> Path:
    """Write something worth keeping to build/; return where."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / name
    path.write_text(text)
    return path
