"""Glob patterns as KEYS, SCAN and CONFIG GET match them, translated to compiled regular expressions.

A pattern is a row of parts that each take one byte, with stars between. For such rows the earliest match of the parts
after a star is always good enough, so every star becomes an atomic group: matching never goes back, and takes at most
the product of both lengths, whatever pattern a client sends.

Guarantees: answers as Redis does, also for unclosed classes, reversed ranges, escapes in classes and trailing
backslashes. Compiled patterns are remembered, at most 256 of them.
Reference: the Redis command page of KEYS; the behaviour of Redis 7 where that page is silent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Matches = Callable[[bytes], bool]

SPECIAL: Final = frozenset(b"*?[\\")
NEVER: Final = b"(?!)"
ANY: Final = b"."


def is_literal(pattern: bytes) -> bool:
    """Tell whether a pattern matches only itself."""
    return SPECIAL.isdisjoint(pattern)


@lru_cache(maxsize=256)
def matcher(pattern: bytes, ignore_case: bool = False) -> Matches:
    """Return a function that tells whether a name matches ``pattern``."""
    if is_literal(pattern) and not ignore_case:
        return pattern.__eq__
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    fullmatch = re.compile(translated(pattern), flags).fullmatch
    only_stars = not pattern.strip(b"*")

    def matches(name: bytes) -> bool:
        # No star matches the empty name in Redis; callers treat the pattern "*" as no pattern.
        return fullmatch(name) is not None and not (only_stars and not name and pattern)

    return matches


def translated(pattern: bytes) -> bytes:
    """Return the regular expression of a glob."""
    rows: list[list[bytes]] = [[]]
    position = 0
    while position < len(pattern):
        byte = pattern[position]
        position += 1
        if byte == 0x2A:
            if rows[-1] or len(rows) == 1:
                rows.append([])
        elif byte == 0x3F:
            rows[-1].append(ANY)
        elif byte == 0x5B:
            part, position = _class(pattern, position)
            rows[-1].append(part)
        else:
            if byte == 0x5C and position < len(pattern):
                byte = pattern[position]
                position += 1
            rows[-1].append(re.escape(bytes((byte,))))
    parts = [b"".join(row) for row in rows]
    if len(parts) == 1:
        return parts[0]
    middle = b"".join(b"(?>.*?%b)" % part for part in parts[1:-1])
    return parts[0] + middle + b".*" + parts[-1]


def _class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """Return the expression of the class that begins at ``position``, after its bracket, and the position behind it."""
    end = len(pattern)
    negated = pattern[position : position + 1] == b"^"
    position += negated
    ranges: list[tuple[int, int]] = []
    while position < end:
        byte = pattern[position]
        left = end - position
        if byte == 0x5C and left >= 2:
            ranges.append((pattern[position + 1], pattern[position + 1]))
            position += 2
        elif byte == 0x5D:
            position += 1
            break
        elif left >= 3 and pattern[position + 1] == 0x2D:
            low, high = sorted((byte, pattern[position + 2]))
            ranges.append((low, high))
            position += 3
        else:
            ranges.append((byte, byte))
            position += 1
    if not ranges:
        return (ANY if negated else NEVER), position
    body = b"".join(b"\\x%02x-\\x%02x" % pair for pair in ranges)
    return b"[%b%b]" % (b"^" if negated else b"", body), position
