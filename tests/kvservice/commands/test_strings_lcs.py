"""LCS by bit vectors against the table that Redis fills, cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvservice.commands.lcs import Run, common_runs, runs_by_columns, runs_by_rows
from kvservice.commands.reply import ErrorReply
from tests.harness.inprocess import InProcess

TEXTS = st.text("abc", max_size=24).map(str.encode)


def runs_by_table(first: bytes, second: bytes) -> list[Run]:
    """Walk back through the table of lengths; on a tie stay in the row, as Redis does."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first, 1):
        for j, right in enumerate(second, 1):
            above, before = table[i - 1][j], table[i][j - 1]
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else max(above, before)
    matches: list[tuple[int, int]] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            matches.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    runs: list[Run] = []
    for i, j in matches:
        if runs and runs[-1][:2] == (i + 1, j + 1):
            runs[-1] = (i, j, runs[-1][2] + 1)
        else:
            runs.append((i, j, 1))
    return runs


@given(TEXTS, TEXTS)
def test_rows_and_columns_find_the_runs_of_the_table(first: bytes, second: bytes) -> None:
    expected = runs_by_table(first, second)
    assert runs_by_rows(first, second) == expected
    assert runs_by_columns(first, second) == expected
    assert common_runs(first, second) == expected


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_may_be_compared(first: bytes, second: bytes) -> None:
    assert common_runs(first, second) == runs_by_table(first, second)


def test_long_strings_are_compared_within_a_few_rows() -> None:
    pattern = b"abcdefgh" * 100_000
    assert sum(size for _, _, size in common_runs(b"hca", pattern)) == 3
    assert sum(size for _, _, size in common_runs(pattern, b"hca")) == 3


def test_strings_whose_table_would_not_fit_are_refused(ours: InProcess) -> None:
    ours.run(b"SET", b"a", b"x" * 12_000)
    ours.run(b"SET", b"b", b"x" * 12_000)
    reply = ours.say("LCS a b")
    assert isinstance(reply, ErrorReply)
    assert b"transient memory for LCS exceeds" in reply.text
