"""Commands that are sent together, and what becomes of them over several attempts.

Order: commands are executed in the order in which they were added, and a batch is not atomic. One that the cluster
refused or lost is sent again after the others, if that is safe: then it may run after commands that were added later.

Guarantees: each command that was answered has its result; what is sent again carries the same request id. One that once
had an unknown outcome is not said to be "not applied" because a repetition was refused.
Leaves to the caller: streams, clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple, Self

from redan_client.errors import OutcomeUnknownError, RedanError
from redan_client.policy import after_unknown, is_safe
from redan_client.requests import (
    NEVER,
    Argument,
    ExpireCondition,
    Requests,
    SetCondition,
    Text,
    encoded,
    milliseconds,
    python_value,
    unix_ms,
)
from redan_client.stubs import kv_pb2

COMMANDS_PER_MESSAGE: Final = 500
"""Where the server's own cost of a message no longer shows; it takes 10,000."""
BYTES_PER_MESSAGE: Final = 512 * 1024
"""Messages of up to 4 MiB pass everywhere by default; one command longer than this has a message of its own."""
MESSAGES_PER_STREAM: Final = 20
"""What one attempt has time for also on a slow machine: 10,000 commands, or 10 MiB. The next stream follows at once."""

_SET_WORDS: Final[dict[SetCondition, list[bytes]]] = {"always": [], "if_absent": [b"NX"], "if_present": [b"XX"]}
_EXPIRE_WORDS: Final[dict[ExpireCondition, list[bytes]]] = {
    "always": [],
    "if_none": [b"NX"],
    "if_some": [b"XX"],
    "if_later": [b"GT"],
    "if_sooner": [b"LT"],
}


class Queued(NamedTuple):
    """A command that waits to be sent."""

    command: kv_pb2.Command
    read: Callable[[Any], Any]
    runs_once: bool


class Commands:
    """Commands in order; each method adds one."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._queued: list[Queued] = []

    def __len__(self) -> int:
        return len(self._queued)

    def get(self, key: Text) -> Self:
        """Read a string; the result is bytes, or None."""
        return self._add([b"GET", encoded(key)])

    def set(
        self,
        key: Text,
        value: Argument,
        *,
        ttl: float | None = None,
        expire_at: datetime | None = None,
        keep_ttl: bool = False,
        condition: SetCondition = "always",
    ) -> Self:
        """Store a string; the result is whether it was stored."""
        if (ttl is not None) + (expire_at is not None) + keep_ttl > 1:
            raise ValueError("ttl, expire_at and keep_ttl exclude each other")
        words = [b"SET", encoded(key), encoded(value), *_SET_WORDS[condition]]
        if ttl is not None:
            words += [b"PX", encoded(milliseconds(ttl))]
        if expire_at is not None:
            words += [b"PXAT", encoded(unix_ms(expire_at))]
        if keep_ttl:
            words.append(b"KEEPTTL")
        return self._add(words, lambda reply: reply is not None)

    def delete(self, *keys: Text) -> Self:
        """Remove keys; the result is how many there were."""
        return self._add([b"DEL", *map(encoded, keys)])

    def exists(self, *keys: Text) -> Self:
        """Count keys that exist."""
        return self._add([b"EXISTS", *map(encoded, keys)])

    def increment(self, key: Text, delta: int = 1) -> Self:
        """Add to an integer; the result is the sum."""
        return self._add([b"INCRBY", encoded(key), encoded(delta)])

    def expire(
        self,
        key: Text,
        *,
        ttl: float | None = None,
        at: datetime | None = None,
        condition: ExpireCondition = "always",
    ) -> Self:
        """Give a key a deadline; the result is whether it has it."""
        if (ttl is None) == (at is None):
            raise ValueError("either ttl or at is needed")
        name, number = (
            (b"PEXPIRE", milliseconds(ttl)) if ttl is not None else (b"PEXPIREAT", unix_ms(at or datetime.max))
        )
        return self._add([name, encoded(key), encoded(number), *_EXPIRE_WORDS[condition]], bool)

    def persist(self, key: Text) -> Self:
        """Take a deadline away; the result is whether there was one."""
        return self._add([b"PERSIST", encoded(key)], bool)

    def ttl(self, key: Text) -> Self:
        """Tell how long a key lives: seconds, NEVER (infinite), or None without a key."""
        return self._add([b"PTTL", encoded(key)], lambda reply: {-2: None, -1: NEVER}.get(reply, reply / 1000))

    def get_many(self, *keys: Text) -> Self:
        """Read several strings; the result is a list."""
        return self._add([b"MGET", *map(encoded, keys)])

    def set_many(self, entries: Mapping[Any, Argument]) -> Self:
        """Store several strings; the result is True."""
        words = [encoded(word) for pair in entries.items() for word in pair]
        return self._add([b"MSET", *words], lambda reply: reply is not None)

    def command(self, *args: Argument) -> Self:
        """Add any command of the Redis API; the result is its reply."""
        return self._add([encoded(arg) for arg in args])

    def _add(self, words: list[bytes], read: Callable[[Any], Any] = lambda reply: reply) -> Self:
        runs_once = self._requests.runs_once(words)
        command = kv_pb2.Command(args=words, request_id=self._requests.new_id() if runs_once else "")
        self._queued.append(Queued(command, read, runs_once))
        return self

    def take(self) -> Batches:
        """Return what was added, for sending, and begin anew."""
        queued, self._queued = self._queued, []
        return Batches(queued, self._requests.database)


class Batches:
    """Commands on their way."""

    def __init__(self, queued: list[Queued], database: int) -> None:
        self._queued = queued
        self._database = database
        self._results: list[Any] = [None] * len(queued)
        self._waiting = set(range(len(queued)))
        """Positions of the commands to send."""
        self._unanswered: dict[int, list[int]] = {}
        """Positions of the commands of each message of this attempt that has no answer, by the message's id."""
        self._unknown: dict[int, OutcomeUnknownError] = {}
        """The last unknown outcome of each command that had one."""
        self.last_error: RedanError | None = None
        """Why a command has to be sent again; None if none has, but for a stream that broke."""

    @property
    def left(self) -> int:
        """How many commands have to be sent."""
        return len(self._waiting)

    @property
    def runs_once(self) -> bool:
        """Whether all that has no result may be sent again."""
        return all(self._queued[at].runs_once for at in self._waiting)

    def begin(self) -> Iterator[kv_pb2.PipelineRequest]:
        """Begin an attempt; return its messages."""
        self.last_error = None
        # gRPC may still take messages of a stream that broke, in a thread of its own: they belong to that stream alone.
        parts = list(enumerate(islice(self._parts(sorted(self._waiting)), MESSAGES_PER_STREAM), 1))
        self._unanswered = dict(parts)
        return (self._message(number, positions) for number, positions in parts)

    def _parts(self, waiting: list[int]) -> Iterator[list[int]]:
        positions: list[int] = []
        size_bytes = 0
        for at in waiting:
            length = self._queued[at].command.ByteSize()
            if positions and (len(positions) >= COMMANDS_PER_MESSAGE or size_bytes + length > BYTES_PER_MESSAGE):
                yield positions
                positions, size_bytes = [], 0
            positions.append(at)
            size_bytes += length
        if positions:
            yield positions

    def _message(self, number: int, positions: list[int]) -> kv_pb2.PipelineRequest:
        commands = [self._queued[at].command for at in positions]
        return kv_pb2.PipelineRequest(batch_id=number, database=self._database, commands=commands)

    def answered(self, response: kv_pb2.PipelineResponse) -> None:
        """Take the results of one message. Raise OutcomeUnknownError if they are not those of one that was sent."""
        positions = self._unanswered.get(response.batch_id, [])
        if not positions or len(positions) != len(response.values):
            raise OutcomeUnknownError(f"{len(response.values)} results came for {len(positions)} commands")
        del self._unanswered[response.batch_id]
        for at, value in zip(positions, response.values, strict=True):
            result, queued = python_value(value), self._queued[at]
            if isinstance(result, RedanError):
                self._failed(at, result)
                if is_safe(result, runs_once=queued.runs_once):
                    self.last_error = result
                    continue
            else:
                self._results[at] = queued.read(result)
            self._waiting.discard(at)

    def _failed(self, at: int, error: RedanError) -> None:
        """Note what a command that was sent failed with."""
        self._results[at] = after_unknown(self._unknown.get(at), error)
        if isinstance(error, OutcomeUnknownError):
            self._unknown[at] = error

    def ended(self) -> None:
        """Note that a stream ended in order. Raise OutcomeUnknownError unless all of its messages were answered."""
        if self._unanswered:
            raise OutcomeUnknownError("the stream ended before all of its messages were answered")

    def broke(self, error: RedanError) -> None:
        """Note that a stream ended before all of its messages were answered."""
        for positions in self._unanswered.values():
            for at in positions:
                self._failed(at, error)

    def gave_up(self, error: RedanError) -> None:
        """Note that nothing will be sent any more, because of this error: it is the result of what was never sent."""
        for at in self._waiting:
            if self._results[at] is None:
                self._results[at] = error

    def results(self) -> list[Any]:
        """Return one result a command; an error where one failed."""
        return self._results
