"""Patterns match what Redis matches, at once, whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.commands.glob import matcher
from tests.harness.oracle import Oracle
from tests.harness.resp2 import encode_reply

ALPHABET = b"ab-]^\\\n"


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (b"h?llo", b"hallo", b"hllo"),
        (b"h*llo", b"heeeello", b"hell"),
        (b"h[ae]llo", b"hello", b"hillo"),
        (b"h[^e]llo", b"hbllo", b"hello"),
        (b"h[a-b]llo", b"hbllo", b"hcllo"),
        (b"h[b-a]llo", b"hallo", b"hcllo"),
        (b"a\\*", b"a*", b"ab"),
        (b"[a\\]]", b"]", b"\\"),
        (b"[ab", b"b", b"["),
        (b"a\\", b"a\\", b"a"),
        (b"[a-]", b"`", b"-"),
        (b"*ab*", b"\nab\n", b"a-b"),
    ],
)
def test_a_pattern_matches_as_documented(pattern: bytes, matching: bytes, other: bytes) -> None:
    matches = matcher(pattern)
    assert matches(matching)
    assert not matches(other)


def test_case_is_ignored_on_request() -> None:
    assert matcher(b"max*", ignore_case=True)(b"MAXmemory")
    assert matcher(b"maxmemory", ignore_case=True)(b"MaxMemory")
    assert not matcher(b"maxmemory")(b"MaxMemory")


def test_a_pattern_of_many_stars_never_goes_back() -> None:
    """A matcher that went back would try more places for the stars than can be tried in a lifetime."""
    assert not matcher(b"*a" * 200 + b"b")(b"a" * 10_000)


@settings(max_examples=300)
@given(
    pattern=st.lists(st.sampled_from([bytes((byte,)) for byte in ALPHABET] + [b"*", b"?", b"[", b"[^"]), max_size=9),
    names=st.lists(
        st.lists(st.sampled_from(list(ALPHABET)), max_size=5).map(bytes), min_size=1, max_size=20, unique=True
    ),
)
def test_any_pattern_matches_as_in_redis(pattern: list[bytes], names: list[bytes], oracle: Oracle) -> None:
    text = b"".join(pattern)
    *_, reply = oracle.send([[b"FLUSHALL"], *[[b"SET", name, b""] for name in names], [b"KEYS", text]])
    matches = matcher(text)
    ours = {name for name in names if text == b"*" or matches(name)}
    # The server's order is its own; each name's encoding is found, and nothing else.
    assert reply.startswith(b"*%d\r\n" % len(ours)), (text, names, reply)
    for name in ours:
        assert encode_reply(name) in reply
