"""Whether a command may run, decided once, in one place and one order, before anything is proposed.

Order (as in Redis's processCommand): known → arity → authentication → state of the node → key sizes → memory.

Guarantees: what is refused here was not applied. Texts are those of Redis.
Reference: Redis ``server.c``, processCommand.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command
from kvservice.errors import NoAuthentication, RedanError, RequestError
from kvservice.session import Session

UNKNOWN_ARGS_BYTES_MAX: Final = 128
"""How much of an unknown command's arguments its error repeats, as in Redis."""


def _answer_refusal(_context: object, args: list[ErrorReply]) -> Reply:
    return args[0]


REFUSED: Final = Command("refused", _answer_refusal, 1, frozenset({"fast"}))  # type: ignore[arg-type]
"""Row that stands in for a refused command, so that its error is answered in order; its one argument is the error."""


def unknown_command(args: Args) -> RequestError:
    """Return Redis's error for a command that does not exist."""
    shown = b""
    for arg in args[1:]:
        if len(shown) >= UNKNOWN_ARGS_BYTES_MAX:
            break
        shown += b"'%b' " % arg[: UNKNOWN_ARGS_BYTES_MAX - len(shown)]
    name = args[0][:UNKNOWN_ARGS_BYTES_MAX]
    text = b"unknown command '%b', with args beginning with: %b" % (name, shown)
    return RequestError(text.replace(b"\r", b" ").replace(b"\n", b" ").decode("utf-8", "surrogateescape"))


def refusal(
    row: Command, args: Args, session: Session, node_refusal: RedanError | None, key_bytes_max: int
) -> RedanError | None:
    """Return why a known command may not run, or None; memory is checked by the service."""
    count = len(args)
    if count < row.arity_min or count > row.arity_max:
        return row.arity_error()
    if not session.authenticated and "no_auth" not in row.flags:
        return NoAuthentication()
    if node_refusal is not None and "loading" not in row.flags and "no_auth" not in row.flags:
        return node_refusal
    for key in row.keys_of(args):
        if len(key) > key_bytes_max:
            return RequestError(f"key is {len(key)} bytes long, allowed are 0..{key_bytes_max} (key-bytes-max)")
    return None
