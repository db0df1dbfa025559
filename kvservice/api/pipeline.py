"""Streams of batches: the fast way in for many commands.

A reader takes batches from the stream, checks and submits them; a writer sends their responses in the same order. Both
run at once, so that many batches wait for the same commit.

Guarantees: one response for each batch, in order, with one value for each command. What went wrong with the stream is
said after the responses to all batches before. A client that does not read is not read from: at most ``BATCHES_MAX``
batches of ``BATCH_BYTES`` together (or one, if it is longer) wait for their replies or to be read. A stream that others
end is over at once, and its client is told so after the response that is under way, whenever it reads that.
Leaves to the caller: admission of the call and its end.

Hot: per command 470 ns to decode, 220 if the commands of the batch differ in arguments of fixed lengths only
(api/batch_wire), 40 ns to check and 90 ns to encode the reply, of 1.8 us for a SET all in all (batches of 256, 64-byte
values); a batch costs some 300 us beside, so 64 commands and more a batch are what it is for. RESP in a bytes field
would save a third, and bring a second format with a guard of its own into the API: not worth it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Event, Future, Queue, Task, current_task
from typing import Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from kvservice.api.batch_wire import read_uniform_batch
from kvservice.api.calls import CallContext, Gate, NotAMessage
from kvservice.api.commands import check_database, refusals
from kvservice.api.convert import encode_values
from kvservice.api.edge import Edge, SessionEnded
from kvservice.api.once import once
from kvservice.api.session import ApiSession
from kvservice.api.status import InvalidField
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args
from kvservice.errors import RedanError, RequestError
from redan.kv.v1 import kv_pb2

BATCHES_MAX: Final = 64
"""As many chunks as a RESP connection may have waiting for a commit."""
BATCH_BYTES: Final = 16 * 1024 * 1024
COMMANDS_MAX: Final = 10_000
"""A larger batch would hold the event loop for more than 20 ms."""
HEADER_BYTES: Final = 512
"""Room in a response for what is not values."""


class Batch(NamedTuple):
    """A batch that was submitted and waits for its replies."""

    batch_id: int
    size_bytes: int
    replies: Future[list[Reply]]
    refused: list[tuple[int, RequestError]]
    selects: bool
    """Whether the first reply is that of a SELECT that was put in front."""


class Pipeline:
    """One stream."""

    def __init__(self, edge: Edge, gate: Gate, context: CallContext, loop: AbstractEventLoop) -> None:
        self._edge = edge
        self._gate = gate
        self._context = context
        self._loop = loop
        self._batches: Queue[Batch | RedanError | None] = Queue(BATCHES_MAX)
        """Batches in order; an error or None is the end."""
        self._bytes = 0
        """Bytes of requests whose responses have not been written."""
        self._room = Event()
        self._database = 0
        """What the last batch selected, perhaps not yet in effect."""

    async def serve(self) -> None:
        """Run the stream to its end. Raise what the client did wrong, or SessionEnded."""
        # gRPC would refuse the status of a call whose first message, with these in front, waits for a client to read.
        await self._context.send_initial_metadata(())
        sessions = self._edge.service.sessions
        with self._edge.session(self._context) as session:
            task = current_task()
            assert task is not None

            session.on_killed = task.cancel
            sessions[session.id] = session
            reader: Task[None] = self._loop.create_task(self._read(session))
            try:
                await self._write(session)
            finally:
                sessions.pop(session.id, None)
                reader.cancel()
                self._gate.give_back(self._bytes)

    async def _read(self, session: ApiSession) -> None:
        read, put = self._context.read, self._batches.put
        try:
            while True:
                raw: object = await read()
                if not isinstance(raw, bytes):  # grpc.aio.EOF
                    await put(None)
                    return
                while self._bytes and self._bytes + len(raw) > BATCH_BYTES:
                    self._room.clear()
                    await self._room.wait()
                await put(self._submit(session, raw))
        except grpc.aio.InternalError:
            await put(SessionEnded())  # the client has gone
        except Exception as exception:
            await put(self._gate.as_error("Pipeline", exception))

    def _submit(self, session: ApiSession, raw: bytes) -> Batch:
        """Check a batch and submit it."""
        request, commands, request_ids = _read_batch(raw)
        config = self._edge.config
        database = check_database(request.database, config)
        _check_count(len(commands))
        size_bytes = len(raw)
        self._gate.take(size_bytes)
        self._bytes += size_bytes
        refused = refusals(commands, size_bytes, config)
        wrong = {position for position, _error in refused}
        if any(request_ids):
            for at, request_id in enumerate(request_ids):
                if at not in wrong:
                    field = f"commands[{at}].request_id"
                    commands[at] = once(self._edge.service.table, commands[at], request_id, field)
        if refused:
            commands = [args for position, args in enumerate(commands) if position not in wrong]
        # A batch can be held back with others of the stream, so the database has to travel with the commands.
        selects = database != self._database and bool(commands)
        if selects:
            self._database = database
            commands.insert(0, [b"SELECT", b"%d" % database])
        if commands:
            replies = session.run(commands)
        else:
            replies = self._loop.create_future()
            replies.set_result([])
        return Batch(request.batch_id, size_bytes, replies, refused, selects)

    async def _write(self, session: ApiSession) -> None:
        get, write = self._batches.get, self._context.write
        limit_bytes = self._gate.message_bytes_max - HEADER_BYTES
        while (batch := await get()) is not None:
            if isinstance(batch, RedanError):
                raise batch
            replies = await batch.replies
            if batch.selects:
                replies = replies[1:]
            for position, error in batch.refused:
                replies.insert(position, ErrorReply(error))
            head = kv_pb2.PipelineResponse(header=self._edge.header(), batch_id=batch.batch_id)
            await write(head.SerializeToString() + encode_values(replies, limit_bytes))
            self._bytes -= batch.size_bytes
            self._gate.give_back(batch.size_bytes)
            self._room.set()


def _read_batch(raw: bytes) -> tuple[kv_pb2.PipelineRequest, list[Args], list[str]]:
    """Return a request, its commands and their request ids, none if no command has one. Raise NotAMessage."""
    try:
        uniform = read_uniform_batch(raw)
        if uniform is not None:
            return *uniform, []
        request = kv_pb2.PipelineRequest.FromString(raw)
    except DecodeError:
        raise NotAMessage("the request is not a redan.kv.v1.PipelineRequest") from None
    _check_count(len(request.commands))
    # Kept in a list: each pass over ``request.commands`` itself makes its messages anew.
    messages = list(request.commands)
    return request, [message.args[:] for message in messages], [message.request_id for message in messages]


def _check_count(count: int) -> None:
    """Raise InvalidField if a batch has too many commands."""
    if count > COMMANDS_MAX:
        raise InvalidField("commands", f"has {count} commands, allowed are 0..{COMMANDS_MAX}")
