"""Our data commands in this process: what the service does around a handler, and nothing else.

Guarantees: time stands still unless ``pass_ms`` moves it. SELECT works, other commands of ``Plane.SERVER`` are unknown.
"""

from __future__ import annotations

import random

from kvservice.commands.context import Context
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply, Reply
from kvservice.commands.table import Args, CommandTable, Plane
from kvservice.errors import RedanError, RequestError
from kvservice.keyspace.database import Clock, Database
from tests.harness.resp2 import encode_reply

DATABASES = 16
START_MS = 1_700_000_000_000


class InProcess:
    """A keyspace and the handlers of the command table."""

    def __init__(self, table: CommandTable = TABLE, now_ms: int = START_MS) -> None:
        self.table = table
        self.clock = Clock()
        self.databases = [Database(index, self.clock) for index in range(DATABASES)]
        self.context = Context(self.clock, self.databases, lambda _index: random.Random(1))
        self.context.applying = True
        self.set_now(now_ms)

    def set_now(self, now_ms: int) -> None:
        """Move time to ``now_ms``, as an entry's stamp does."""
        self.clock.now_ms = self.clock.stamp_ms = now_ms

    def pass_ms(self, duration_ms: int) -> None:
        """Let time pass."""
        self.set_now(self.clock.now_ms + duration_ms)

    def flush(self) -> None:
        """Drop every key and what is known of its use, and select database 0."""
        for database in self.databases:
            database.clear()
            database.access = None
        self.context.db = self.databases[0]

    def run(self, *args: bytes | int) -> Reply:
        """Run one command and return its reply; an error is an ErrorReply."""
        words = [b"%d" % arg if isinstance(arg, int) else arg for arg in args]
        try:
            return self._reply_to(words)
        except RedanError as error:
            return ErrorReply(error)

    def say(self, line: str) -> Reply:
        """Run one command written as blank-separated words."""
        return self.run(*line.encode().split())

    def send(self, commands: list[list[bytes]]) -> list[bytes]:
        """Run commands in order; return one raw RESP2 reply for each."""
        return [encode_reply(self.run(*command)) for command in commands]

    def _reply_to(self, args: Args) -> Reply:
        if args[0].upper() == b"SELECT":
            self.context.db = self.databases[int(args[1])]
            return OK
        row = self.table.find(args[0])
        if row is None or row.plane is not Plane.DATA:
            raise RequestError(f"unknown command '{args[0].decode()}'")
        if not row.arity_min <= len(args) <= row.arity_max:
            raise row.arity_error()
        return row.run(self.context, args)
