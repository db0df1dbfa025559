"""What the keyspace must know of a data type: one `Kind` for each Python class that a key may hold.

Guarantees: TYPE, OBJECT ENCODING, COPY and snapshots read this table and nothing else, so that a new data type is one
``register`` call with its functions. ``frozen`` and ``thawed`` are each other's inverse.
Leaves to the caller: strings, which are everywhere, are told apart by their Python type before this table is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kvservice.keyspace.values import Value

EMBSTR_BYTES_MAX: Final = 44
"""Redis stores a string up to this size in one allocation with its object; OBJECT ENCODING shows the difference."""


class Kind(NamedTuple):
    """The functions of one class of values."""

    type_name: bytes
    """What TYPE answers, and what SCAN … TYPE compares with."""
    code: int
    """Names the kind in a snapshot; never reused for another one."""
    encoding: Callable[[Any], bytes]
    """What OBJECT ENCODING answers."""
    copied: Callable[[Any], Any]
    """Returns an independent copy; the value itself if it cannot change."""
    frozen: Callable[[Any], Any]
    """Returns the value as plain lists, dicts, ints, floats and bytes, which share nothing that can change with it."""
    thawed: Callable[[Any], Any]
    """Returns the value of its frozen form."""


KINDS: Final[dict[type, Kind]] = {}
KINDS_BY_CODE: Final[dict[int, Kind]] = {}


def register(value_class: type, kind: Kind) -> None:
    """Make a class of values known."""
    assert value_class not in KINDS, f"{value_class.__name__} is registered already"
    assert kind.code not in KINDS_BY_CODE, f"two kinds have the code {kind.code}"
    KINDS[value_class] = kind
    KINDS_BY_CODE[kind.code] = kind


def kind_of(value: Value) -> Kind:
    """Return the kind of a stored value."""
    return KINDS[type(value)]


def _same(value: Any) -> Any:
    return value


def _text_encoding(value: bytes) -> bytes:
    return b"embstr" if len(value) <= EMBSTR_BYTES_MAX else b"raw"


register(bytes, Kind(b"string", 0, _text_encoding, _same, _same, _same))
register(int, Kind(b"string", 1, lambda _value: b"int", _same, _same, _same))
register(bytearray, Kind(b"string", 2, lambda _value: b"raw", bytearray, bytes, bytearray))
