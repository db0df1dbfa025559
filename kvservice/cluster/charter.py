"""What a node has to know of its cluster before its log can be read; kept in META of the data directory.

Guarantees: cluster, configuration and founders are written once, when the node comes into a cluster, and change only
when its disk has lost something or a person has made a cluster of one out of it. ``latest`` follows the members.
Layout: msgpack array of version, cluster_id, configuration (replication/core/membership), index, founders,
is_quarantined, term, latest (a configuration).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from replication.core import membership
from replication.core.membership import Configuration

VERSION = 1


class Charter(NamedTuple):
    """How a node belongs to its cluster."""

    cluster_id: str
    configuration: Configuration
    """The members as of entry ``index``: what counts until the log or a later snapshot says otherwise."""
    index: int = 0  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    founders: Mapping[str, str] = MappingProxyType({})
    """By name, the identity of the data directory that each first member had when the cluster was founded."""
    is_quarantined: bool = False
    """The log begins empty although this node may have acknowledged entries: it votes once it has caught up."""
    term: int = 0
    """The node may have answered in this term: it takes part in no earlier one."""
    latest: Configuration = Configuration(())
    """The members as they were last known; who is asked when the log cannot be read."""


_Fields = tuple[int, str, bytes, int, dict[str, str], bool, int, bytes]
_DECODER = msgspec.msgpack.Decoder(_Fields)


def encode(charter: Charter) -> bytes:
    """Return the bytes of a charter."""
    cluster_id, configuration, index, founders, is_quarantined, term, latest = charter
    fields: _Fields = (
        VERSION,
        cluster_id,
        membership.encode(configuration),
        index,
        dict(founders),
        is_quarantined,
        term,
        membership.encode(latest),
    )
    return msgspec.msgpack.encode(fields)


def decode(encoded: bytes) -> Charter:
    """Return the charter that ``encode`` wrote. Raises ValueError on anything else."""
    try:
        version, cluster_id, configuration, index, founders, is_quarantined, term, latest = _DECODER.decode(encoded)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a charter: {error}") from error
    if version != VERSION:
        raise ValueError(f"a charter of version {version}, this program knows version {VERSION}")
    return Charter(
        cluster_id, membership.decode(configuration), index, founders, is_quarantined, term, membership.decode(latest)
    )
