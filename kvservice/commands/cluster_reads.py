"""What CLUSTER asks of the data plane, wherever that is: commands of nodes among themselves, which no client may send.

Guarantees: reads; a key whose time has come is not there.
Leaves to the caller: checking the arguments (commands/cluster).
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.reply import Reply
from kvservice.commands.table import NO_KEYS, Args, Command, Handler, flags

COUNT_IN_SLOT: Final = b"REDAN.COUNTINSLOT"
KEYS_IN_SLOT: Final = b"REDAN.KEYSINSLOT"


def count_in_slot(ctx: Context, args: Args) -> Reply:
    """Answer how many live keys of the database a slot has."""
    db, slot = ctx.db, int(args[1])
    deadlines = db.expires[slot] or {}
    return len(db.values[slot]) - sum(map(db.is_expired, deadlines.values()))


def keys_in_slot(ctx: Context, args: Args) -> Reply:
    """Answer some live keys of a slot, the oldest first."""
    db, slot = ctx.db, int(args[1])
    deadlines = db.expires[slot] or {}
    live = (key for key in db.values[slot] if key not in deadlines or not db.is_expired(deadlines[key]))
    return list(islice(live, int(args[2])))


def _row(name: bytes, run: Handler, arity: int) -> Command:
    # Without a summary: statistics do not show what no client can name.
    return Command(name.decode().lower(), run, arity, flags("readonly"), NO_KEYS, quick=False)


ROWS: Final = [_row(COUNT_IN_SLOT, count_in_slot, 2), _row(KEYS_IN_SLOT, keys_in_slot, 3)]
