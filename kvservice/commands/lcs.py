"""LCS: the longest common subsequence of two strings.

Redis fills a table of (n+1)(m+1) numbers and walks back through it. Neighbours in that table differ by at most one, so
a row is a bit vector: bit j says that cell j+1 is one more than cell j. A row follows from the one above by a few
operations on one long integer, 30 cells a machine step in CPython instead of one cell in some 50 bytecodes, and the
rows that the way back needs take one bit a cell instead of 32. At Redis's own limit of 134 million cells that is
16 MiB and, on one core of a small server, 30 to 190 ms.

The integer lies along the longer string, so the loop runs over the shorter one. Rows and columns are two cases because
the way back must break ties as Redis does, which is not symmetric: at a mismatch it stays in the row (j - 1) unless the
cell above is larger.

Guarantees: the same subsequence and the same ranges, in the same order, as Redis.
Reference: H. Hyyrö, "Bit-parallel LCS-length computation revisited" (2004); the Redis command page of LCS.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import TWO_KEYS, Args
from kvservice.errors import RequestError
from kvservice.keyspace.values import STRING_BYTES_MAX, STRING_TYPES, text_of

CELL_BYTES: Final = 4
"""Size of a cell of Redis's table, which its limit is expressed in."""

Run = tuple[int, int, int]
"""A common run of bytes: start in the first string, start in the second, length."""


def steps_along(text: bytes, across: bytes) -> list[int]:
    """Return one bit vector over ``text`` for each byte of ``across``: where the table grows by one along ``text``."""
    everything = (1 << len(text)) - 1
    backwards = text[::-1]
    places: dict[int, int] = {}
    zeros = b"0" * 256
    vectors: list[int] = []
    flat = everything
    for byte in across:
        place = places.get(byte)
        if place is None:
            table = zeros[:byte] + b"1" + zeros[byte + 1 :]
            place = places[byte] = int(backwards.translate(table), 2) if text else 0
        common = flat & place
        flat = ((flat + common) | (flat - common)) & everything
        vectors.append(everything ^ flat)
    return vectors


def runs_by_rows(first: bytes, second: bytes) -> list[Run]:
    """Return the common runs from last to first, for a second string that is the longer one."""
    rows = steps_along(second, first)
    runs: list[Run] = []
    j = len(second)
    for i in range(len(first), 0, -1):
        # In row i the way back goes left to the next match or step, whichever comes first; a step leads up.
        match = second.rfind(first[i - 1], 0, j) + 1
        step = (rows[i - 1] & ((1 << j) - 1)).bit_length()
        if match >= step:
            if match == 0:
                break
            j = match - 1
            add_match(runs, i - 1, j)
        else:
            j = step
    return runs


def runs_by_columns(first: bytes, second: bytes) -> list[Run]:
    """Return the common runs from last to first, for a first string that is the longer one."""
    columns = [0, *steps_along(first, second)]
    runs: list[Run] = []
    i = len(first)
    length = columns[-1].bit_count()
    for j in range(len(second), 0, -1):
        if i == 0:
            break
        left = (columns[j - 1] & ((1 << i) - 1)).bit_count()
        # With a cell to the left that is smaller, the way back goes up to a match, which is sure to come.
        match = i if left == length else first.rfind(second[j - 1], 0, i) + 1
        if first[match - 1] == second[j - 1]:
            i = match - 1
            add_match(runs, i, j - 1)
            length -= 1
    return runs


def add_match(runs: list[Run], i: int, j: int) -> None:
    """Add one matching byte before the ones found so far."""
    if runs:
        start_i, start_j, size = runs[-1]
        if start_i == i + 1 and start_j == j + 1:
            runs[-1] = (i, j, size + 1)
            return
    runs.append((i, j, 1))


def common_runs(first: bytes, second: bytes) -> list[Run]:
    """Return the runs of bytes that make up the longest common subsequence, from last to first."""
    return runs_by_rows(first, second) if len(first) <= len(second) else runs_by_columns(first, second)


def string_of(ctx: Context, key: bytes) -> bytes:
    """Return the string at ``key``, empty if missing. Raise RequestError."""
    value = ctx.db.get(key)
    if value is None:
        ctx.misses += 1
        return b""
    ctx.hits += 1
    if type(value) not in STRING_TYPES:
        raise RequestError("The specified keys must contain string values")
    return text_of(value)


def lcs(ctx: Context, args: Args) -> Reply:
    """Answer the longest common subsequence, its length (LEN), or its ranges in both strings (IDX)."""
    first, second = string_of(ctx, args[1]), string_of(ctx, args[2])
    words: list[bytes] = []
    shortest = 0
    position = 3
    while position < len(args):
        word = args[position].upper()
        if word == b"MINMATCHLEN" and position + 1 < len(args):
            position += 1
            shortest = integer(args[position])
        elif word not in (b"IDX", b"LEN", b"WITHMATCHLEN"):
            raise RequestError(SYNTAX_ERROR)
        words.append(word)
        position += 1
    if b"IDX" in words and b"LEN" in words:
        raise RequestError("If you want both the length and indexes, please just use IDX.")
    if (len(first) + 1) * (len(second) + 1) * CELL_BYTES > STRING_BYTES_MAX:
        raise RequestError("Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    runs = common_runs(first, second)
    if b"IDX" in words:
        return ranges_reply(runs, shortest, b"WITHMATCHLEN" in words)
    if b"LEN" in words:
        return sum(size for _, _, size in runs)
    return b"".join(first[start : start + size] for start, _, size in reversed(runs))


def ranges_reply(runs: list[Run], shortest: int, with_length: bool) -> Reply:
    """Return the reply of LCS IDX for runs of at least ``shortest`` bytes."""
    matches: list[Reply] = []
    for i, j, size in runs:
        if size >= shortest:
            ranges: list[Reply] = [[i, i + size - 1], [j, j + size - 1]]
            matches.append([*ranges, size] if with_length else ranges)
    return {b"matches": matches, b"len": sum(size for _, _, size in runs)}


_row = Family("string", "string").row
_OF_BOTH: Final = "O(N*M) where N and M are the lengths of the strings"

ROWS: Final = [
    _row("lcs", lcs, -3, "readonly", TWO_KEYS, "7.0.0", "Finds the longest common subsequence.", _OF_BOTH),
]
