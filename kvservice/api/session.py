"""The caller behind a gRPC call or stream: submits batches of commands and gets their replies as one list each.

Guarantees: a batch's future ends once, with exactly one reply for each of its commands, in order; or it is cancelled
when the session ends. One future for a batch, nothing for a command.
Leaves to the caller: bounding how many batches wait.
States: open → closed, for good; what is delivered after that is dropped, and its outcome is unknown to the client.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable

from kvservice.commands.reply import Reply
from kvservice.commands.table import Args
from kvservice.service import Service
from kvservice.session import Session


class ApiSession(Session):
    """One unary call, or one stream with all its batches."""

    def __init__(self, service: Service, address: str, loop: AbstractEventLoop) -> None:
        super().__init__(service.next_session_id(), address, str(service.config.grpc_addr), loop.time())
        self.protocol = 3
        self.is_trusted = True
        self._service = service
        self._loop = loop
        self._waiting: deque[tuple[int, Future[list[Reply]]]] = deque()
        """(replies it gets, future) of each batch whose replies are not complete, in order of submission."""
        self._replies: list[Reply] = []
        """Replies of the first waiting batch, while they are not complete."""
        self.is_killed = False
        """Whether others ended the session: CLIENT KILL, a stop of the node, a failure of the disk."""
        self.on_killed: Callable[[], object] = lambda: None

    def run(self, commands: list[Args]) -> Future[list[Reply]]:
        """Submit commands, at least one and each with a name, and return the future of their replies."""
        future: Future[list[Reply]] = self._loop.create_future()
        if self.is_closed:
            future.cancel()
            return future
        self._waiting.append((len(commands), future))
        self._service.submit(self, commands, None)
        return future

    def deliver(self, replies: list[Reply]) -> None:
        """Pass replies on to the batches that wait for them; hot."""
        waiting = self._waiting
        if self.is_closed or not waiting:
            return
        if self._replies or len(replies) != waiting[0][0]:
            self._replies += replies
            while waiting and len(self._replies) >= waiting[0][0]:
                count, future = waiting.popleft()
                _end(future, self._replies[:count])
                del self._replies[:count]
            return
        _end(waiting.popleft()[1], replies)

    def close(self, after_replies: bool = True) -> None:
        """End the session from outside; may be called twice."""
        if not self.is_closed:
            self.is_killed = True
            self.forget()
            self.on_killed()

    def forget(self) -> None:
        """Drop whatever waits: nobody is there to be answered."""
        self.is_closed = True
        self.backlog.clear()
        for _count, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._replies.clear()


def _end(future: Future[list[Reply]], replies: list[Reply]) -> None:
    if not future.done():
        future.set_result(replies)
