"""All commands: the table that dispatch, COMMAND, admission and the reference pages read.

A new data type adds its family's ROWS here.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands import (
    bitfield,
    bits,
    cluster_reads,
    counters,
    debug_reads,
    dump,
    expire,
    keys,
    lcs,
    objects,
    once,
    scan,
    server_rows,
    strings,
)
from kvservice.commands.table import CommandTable

FAMILIES: Final = (strings, counters, lcs, bits, bitfield, keys, expire, scan, dump, objects, server_rows)

TABLE: Final = CommandTable(row for family in FAMILIES for row in family.ROWS)
TABLE.add_internal(once.rows(TABLE.find))
TABLE.add_internal(debug_reads.ROWS)
TABLE.add_internal(cluster_reads.ROWS)
