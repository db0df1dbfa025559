"""Where gRPC calls meet the service: sessions for calls, the header of responses, and the end of both.

Guarantees: a call whose session is ended by others fails as ABORTED with outcome `unknown`, never as UNAVAILABLE, which
retry policies repeat; what it had submitted may still be applied.
Leaves to the caller: checking what is submitted (kvservice.api.commands).
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, current_task
from collections.abc import Iterator
from contextlib import contextmanager

from kvservice.api.calls import CallContext, address_of
from kvservice.api.commands import check_database
from kvservice.api.session import ApiSession
from kvservice.cluster.members import Members
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args
from kvservice.errors import OutcomeUnknownError
from kvservice.service import Service
from redan.kv.v1 import kv_pb2


class SessionEnded(OutcomeUnknownError):  # noqa: N818 - named as the rest of the tree
    """The node stops, or CLIENT KILL ended the stream."""

    reason = "SESSION_ENDED"
    default_text = "outcome: the node ended the call, and what it asked for may still be applied"


class Edge:
    """The service as the gRPC servicers see it."""

    def __init__(self, service: Service, members: Members, loop: AbstractEventLoop) -> None:
        self.service = service
        self.config = service.config
        self._members = members
        self._loop = loop
        self._open: set[ApiSession] = set()

    def header(self) -> kv_pb2.ResponseHeader:
        """Return the header of a response that is made now."""
        service = self.service
        return kv_pb2.ResponseHeader(
            cluster_id=self._members.cluster_id,
            node=self.config.name,
            term=service.node.term,
            index=service.machine.index,
        )

    async def run(self, context: CallContext, database: int, commands: list[Args]) -> list[Reply]:
        """Run commands for a unary call and return their replies. Raise InvalidField, SessionEnded."""
        check_database(database, self.config)
        with self.session(context) as session:
            session.db = database
            return await session.run(commands)

    @contextmanager
    def session(self, context: CallContext) -> Iterator[ApiSession]:
        """Give a call a session, for as long as the block runs. Raise SessionEnded when others end it meanwhile."""
        session = ApiSession(self.service, address_of(context), self._loop)
        self._open.add(session)
        try:
            yield session
        except CancelledError:
            if not session.is_killed:
                raise
            if (task := current_task()) is not None:
                task.uncancel()
            raise SessionEnded from None
        finally:
            self._open.discard(session)
            session.forget()

    def end_all(self) -> None:
        """End every session."""
        for session in list(self._open):
            session.close()
