"""Request ids of calls: how a write becomes one that runs once.

Guarantees: what no request id helps (reads, commands that the service will refuse) passes as it is.
Leaves to the caller: nothing; the answer, first or remembered, is an answer like any other.
Reference: commands/once, keyspace/once; google.aip.dev/155 (request identification).
"""

from __future__ import annotations

from kvservice.api.status import InvalidField
from kvservice.commands.containers import leaf
from kvservice.commands.once import wrapped
from kvservice.commands.table import Args, CommandTable
from kvservice.errors import RequestError
from kvservice.keyspace.once import ID_BYTES_MAX


def once(table: CommandTable, command: Args, request_id: str, field: str = "request_id") -> Args:
    """Return a command that runs once for a request id; the command itself if it needs none. Raise InvalidField."""
    if not request_id:
        return command
    encoded = request_id.encode()
    if len(encoded) > ID_BYTES_MAX:
        raise InvalidField(field, f"is {len(encoded)} bytes long, allowed are 0..{ID_BYTES_MAX}")
    row = table.find(command[0])
    if row is None:
        return command
    try:
        row = leaf(row, command)
    except RequestError:
        return command
    return wrapped(encoded, row, command) if row.is_write and row.is_data else command
