"""Everything the service knows about one caller: a RESP connection or a gRPC stream.

Guarantees: replies are delivered in the order of the commands; ``pending`` counts submissions whose replies wait for a
commit, a round of reads or the leader's answer, so that what the same caller asks later can stay behind them.
Leaves to subclasses: encoding and writing replies (``deliver``), closing, buffer sizes.
Invariant: while ``held`` is true, everything that arrives goes to ``backlog`` and nothing of it runs.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from kvservice.commands.reply import Pending, Reply
from kvservice.commands.table import Args

NO_LANE: Final = 0
"""Lane of a caller whose pending submissions nothing may join."""


class Session:
    """State of one caller; subclasses say how replies leave."""

    kind = "normal"
    """What CLIENT LIST calls it; ``internal`` is the node itself, ``remote`` a caller of another node."""

    def __init__(self, session_id: int, address: str, local_address: str, created_s: float) -> None:
        self.id = session_id
        self.address = address
        self.local_address = local_address
        self.created_s = created_s
        self.last_active_s = created_s
        self.name = b""
        self.lib_name = b""
        self.lib_version = b""
        self.user = b"default"
        self.protocol = 2
        self.db = 0
        self.authenticated = True
        self.is_trusted = False
        """Whether its commands come from code of a node and may be those that no client may name (commands/once)."""
        self.no_evict = False
        self.no_touch = False
        self.reply_mode = "on"
        self.last_command = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.pending = 0
        """Submissions that wait for a commit, for a round of reads, or for the leader."""
        self.away = 0
        """Those of them that are with the forwarder (kvservice/forwarding)."""
        self.lane = NO_LANE
        """Where the submissions that wait do so (kvservice/router); means nothing while none waits."""
        self.is_in_doubt = False
        """Whether the last of its writes was answered as unknown: what WAIT would count may not have it."""
        self.held = False
        self.backlog: deque[list[Args]] = deque()
        self.awaited: Pending | None = None
        """Reply of a command of the server plane that takes its time: WAIT, SAVE, DEBUG SLEEP."""
        self.fd = -1
        """Of its socket; -1 without one of its own."""
        self.is_closed = False

    @property
    def query_buffer_bytes(self) -> int:
        """Bytes received and not yet parsed into commands."""
        return 0

    @property
    def output_buffer_bytes(self) -> int:
        """Bytes of replies not yet handed to the kernel."""
        return 0

    def deliver(self, replies: list[Reply]) -> None:
        """Send replies to the caller, in order."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Learn that submissions beyond the first ``pending`` ones were not applied, and are not tried again here.

        Only for callers of kind ``remote``: their own node tries again.
        """
        raise NotImplementedError

    def close(self, after_replies: bool = True) -> None:
        """End the session, after what was delivered has left if ``after_replies``."""
        raise NotImplementedError
