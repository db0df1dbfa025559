"""All rows of the server plane, for the registry.

Leaves to the registry: the rows of the data plane's families.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands import (
    client,
    cluster,
    config_commands,
    connection,
    debug,
    info,
    introspection,
    latency,
    memory_commands,
    server,
    slowlog,
)
from kvservice.commands.table import Command

ROWS: Final[list[Command]] = [
    *connection.ROWS,
    *client.ROWS,
    *introspection.ROWS,
    *info.ROWS,
    *config_commands.ROWS,
    *slowlog.ROWS,
    *latency.ROWS,
    *memory_commands.ROWS,
    *debug.ROWS,
    *server.ROWS,
    *cluster.ROWS,
]
