"""Our data commands and a real redis-server are told the same, and must answer the same.

Hypothesis makes the conversations (``strategies``); what is compared, and what may differ, is in ``comparison``.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings

from kvservice.commands.registry import TABLE
from kvservice.commands.table import Plane
from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle
from tests.kvservice.commands.comparison import Comparison, alike
from tests.kvservice.commands.strategies import ARGUMENTS, BITS, GENERIC, STRINGS, conversations

CONVERSATIONS = {"strings": 900, "bits": 700, "generic": 700, "all": 900}
"""How many conversations a family gets: 3,200 in all, half a minute on one core."""
FAMILIES = {"strings": STRINGS, "bits": BITS, "generic": GENERIC | {"set": STRINGS["set"]}, "all": ARGUMENTS}


@pytest.fixture(scope="module")
def comparison(oracle: Oracle) -> Comparison:
    ours = InProcess()

    def prepare() -> None:
        ours.flush()
        ours.set_now(int(time.time() * 1000))

    return Comparison(ours, oracle, prepare)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_we_answer_as_redis_does(comparison: Comparison, family: str) -> None:
    @settings(max_examples=CONVERSATIONS[family], print_blob=True, suppress_health_check=list(HealthCheck))
    @given(conversations(FAMILIES[family]))
    def hold(conversation: list[list[bytes]]) -> None:
        comparison.check(conversation)

    hold()


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_each_command_alone_answers_as_redis_does(comparison: Comparison, name: str) -> None:
    @settings(max_examples=15, print_blob=True, suppress_health_check=list(HealthCheck))
    @given(conversations([name]))
    def hold(conversation: list[list[bytes]]) -> None:
        comparison.check(conversation)

    hold()


def test_every_data_command_has_a_strategy() -> None:
    data_commands = {row.name for row in TABLE.rows if row.plane is Plane.DATA}
    assert data_commands == set(ARGUMENTS)


def test_a_planted_difference_is_found(oracle: Oracle) -> None:
    """The comparison itself is tested: a reply, an error text, a value and an encoding that differ."""
    for hidden, said in (
        ([b"GET", b"a"], b"$1\r\n1\r\n"),
        ([b"INCR", b"a"], b"-ERR value is not an integer\r\n"),
        ([b"TTL", b"a"], b":100\r\n"),
        ([b"KEYS", b"*"], b"*1\r\n$1\r\nb\r\n"),
        ([b"BITCOUNT", b"a", b"0"], b":0\r\n"),
    ):
        theirs = oracle.send([[b"FLUSHALL"], [b"SET", b"a", b"text"], hidden])[2]
        assert not alike(hidden, said, theirs), (hidden, theirs)
