"""CLIENT KILL in its two forms: one address, or filters that must all match.

Guarantees: the caller's own connection is closed after its reply, never before.
Reference: Redis `clientKillCommand`.
"""

from __future__ import annotations

import time
from typing import Final

from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.ports import ServerCall
from kvservice.commands.reply import OK, Reply
from kvservice.commands.table import Args
from kvservice.errors import RequestError
from kvservice.session import Session

_KINDS: Final = {b"NORMAL": "normal", b"MASTER": "master", b"REPLICA": "replica", b"SLAVE": "replica",
                 b"PUBSUB": "pubsub"}  # fmt: skip
KNOWN_USERS: Final = (b"default",)


def client_type(word: bytes) -> str:
    """Return the kind of session that a TYPE option names. Raise RequestError."""
    kind = _KINDS.get(word.upper())
    if kind is None:
        raise RequestError(f"Unknown client type '{word.decode('utf-8', 'surrogateescape')}'")
    return kind


class KillFilter:
    """The connections that a KILL means: those that match every option that was given."""

    def __init__(self) -> None:
        self.id: int | None = None
        self.address: bytes | None = None
        self.local_address: bytes | None = None
        self.user: bytes | None = None
        self.kind: str | None = None
        self.age_min_s: int | None = None
        self.spares_caller = True

    def matches(self, session: Session, caller: Session, now_s: float) -> bool:
        """Tell whether ``session`` is meant; ``now_s`` is the loop's time."""
        return not (
            (self.spares_caller and session is caller)
            or (self.id is not None and session.id != self.id)
            or (self.address is not None and session.address.encode() != self.address)
            or (self.local_address is not None and session.local_address.encode() != self.local_address)
            or (self.user is not None and session.user != self.user)
            or (self.kind is not None and session.kind != self.kind)
            or (self.age_min_s is not None and now_s - session.created_s < self.age_min_s)
        )


def kill(call: ServerCall, args: Args) -> Reply:
    """Close connections; answer OK in the old form and their number in the new one."""
    old_form = len(args) == 3
    chosen = KillFilter()
    if old_form:
        chosen.address = args[2]
        chosen.spares_caller = False
    else:
        _read_options(chosen, args)
    now_s = time.monotonic()
    doomed = [session for session in call.service.sessions.values() if chosen.matches(session, call.session, now_s)]
    for session in doomed:
        if session is call.session:
            call.ends_session = True
        else:
            session.close(after_replies=False)
    if not old_form:
        return len(doomed)
    if not doomed:
        raise RequestError("No such client")
    return OK


def _read_options(chosen: KillFilter, args: Args) -> None:
    if len(args) % 2:
        raise RequestError(SYNTAX_ERROR)
    for at in range(2, len(args), 2):
        word, value = args[at].upper(), args[at + 1]
        text = value.decode("utf-8", "surrogateescape")
        match word:
            case b"ID":
                chosen.id = integer(value, "client-id should be greater than 0")
                if chosen.id < 1:
                    raise RequestError("client-id should be greater than 0")
            case b"ADDR":
                chosen.address = value
            case b"LADDR":
                chosen.local_address = value
            case b"USER":
                if value not in KNOWN_USERS:
                    raise RequestError(f"No such user '{text}'")
                chosen.user = value
            case b"TYPE":
                chosen.kind = client_type(value)
            case b"MAXAGE":
                chosen.age_min_s = integer(value, "maxage is not an integer or out of range")
                if chosen.age_min_s < 1:
                    raise RequestError("maxage should be greater than 0")
            case b"SKIPME" if value.upper() in (b"YES", b"NO"):
                chosen.spares_caller = value.upper() == b"YES"
            case _:
                raise RequestError(SYNTAX_ERROR)
