"""What the clients repeat and what they do not, against stand-ins for nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from stand_in import Node, Refusal, leading, not_applied, rejected, stand_in, unknown

from redan_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    NotAppliedError,
    OutcomeUnknownError,
    RedanError,
    RequestError,
    Settings,
)
from redan_client.stubs import kv_pb2

QUICK = Settings(timeout=90.0, attempt_timeout=30.0, first_pause=0.001, longest_pause=0.01)
SHORT = Settings(timeout=2.0, attempt_timeout=1.0, first_pause=0.01, longest_pause=0.02)
SUM = kv_pb2.IncrementResponse(value=7)


@pytest.fixture
def node() -> Iterator[Node]:
    with stand_in() as serving:
        yield serving


def client_of(*nodes: Node, **options: Any) -> Client:
    return Client([node.address for node in nodes], settings=options.pop("settings", QUICK), **options)


@pytest.mark.parametrize(
    "failure",
    [
        not_applied(),
        not_applied("OVERLOADED"),
        unknown(),
        Refusal(grpc.StatusCode.UNAVAILABLE),
        Refusal(grpc.StatusCode.INTERNAL),
    ],
    ids=["no leader", "overloaded", "leadership lost", "connection lost", "stream reset"],
)
def test_a_write_is_repeated_with_the_same_request_id(node: Node, failure: Refusal) -> None:
    node.answers = [failure, failure, SUM]
    with client_of(node) as client:
        assert client.increment("n") == 7
    ids = [request.request_id for request in node.requests()]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


def test_two_writes_have_two_request_ids(node: Node) -> None:
    node.answers = [SUM]
    with client_of(node) as client:
        client.increment("n")
        client.increment("n")
    first, second = node.requests()
    assert first.request_id != second.request_id


@pytest.mark.parametrize("failure", [unknown(), Refusal(grpc.StatusCode.UNAVAILABLE)])
def test_without_a_request_id_a_write_of_unknown_outcome_is_not_repeated(node: Node, failure: Refusal) -> None:
    node.answers = [failure, SUM]
    with client_of(node, request_ids=False) as client, pytest.raises(OutcomeUnknownError):
        client.increment("n")
    assert [request.request_id for request in node.requests()] == [""]


def test_without_a_request_id_a_write_that_was_not_applied_is_repeated(node: Node) -> None:
    node.answers = [not_applied(), SUM]
    with client_of(node, request_ids=False) as client:
        assert client.increment("n") == 7
    assert [request.request_id for request in node.requests()] == ["", ""]


def test_a_read_is_repeated_whatever_became_of_it(node: Node) -> None:
    node.answers = [unknown(), Refusal(grpc.StatusCode.UNAVAILABLE), kv_pb2.GetResponse(value=b"v")]
    with client_of(node, request_ids=False) as client:
        assert client.get("k") == b"v"
    assert len(node.asked) == 3


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (rejected(), RequestError, "WRONG_TYPE"),
        (Refusal(grpc.StatusCode.UNAUTHENTICATED, "WRONG_PASSWORD", outcome="rejected"), AuthenticationError, ""),
        (not_applied("OUT_OF_MEMORY"), NotAppliedError, "OUT_OF_MEMORY"),
        (
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "REPLY_NOT_KEPT", outcome="unknown"),
            OutcomeUnknownError,
            "REPLY_NOT_KEPT",
        ),
        (Refusal(grpc.StatusCode.UNIMPLEMENTED), RequestError, ""),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED), OutcomeUnknownError, ""),
    ],
    ids=["rejected", "wrong password", "out of memory", "reply not kept", "no such call", "message too long"],
)
def test_what_will_not_pass_is_not_repeated(node: Node, failure: Refusal, kind: type[RedanError], reason: str) -> None:
    node.answers = [failure]
    with client_of(node) as client, pytest.raises(kind) as raised:
        client.set("k", "v")
    assert len(node.asked) == 1
    assert raised.value.code == failure.code.name
    assert reason in ("", raised.value.reason)


@pytest.mark.parametrize("before", [unknown(), Refusal(grpc.StatusCode.UNAVAILABLE)], ids=["lost", "no details"])
@pytest.mark.parametrize(
    "refused",
    [
        not_applied("OUT_OF_MEMORY"),
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", outcome="rejected"),
        Refusal(grpc.StatusCode.UNAUTHENTICATED, "WRONG_PASSWORD", outcome="rejected"),
    ],
    ids=["out of memory", "rejected", "wrong password"],
)
def test_a_write_that_may_have_been_applied_is_not_made_undone_by_a_refused_repetition(
    node: Node, before: Refusal, refused: Refusal
) -> None:
    node.answers = [before, not_applied(), refused]
    with client_of(node) as client, pytest.raises(OutcomeUnknownError, match=f"failed: {refused.reason}: ") as raised:
        client.increment("n")
    assert (raised.value.code, raised.value.reason) == (before.code.name, before.reason)
    assert len(node.asked) == 3


def test_a_write_that_may_have_been_applied_is_not_made_undone_by_giving_up(node: Node) -> None:
    node.answers = [unknown(), not_applied()]
    with client_of(node, settings=SHORT) as client, pytest.raises(OutcomeUnknownError):
        client.increment("n")


def test_the_answer_of_the_command_itself_tells_what_became_of_the_first_attempt(node: Node) -> None:
    node.answers = [unknown(), rejected()]
    with client_of(node) as client, pytest.raises(RequestError, match="because of WRONG_TYPE"):
        client.increment("n")


@pytest.mark.parametrize(("name", "times"), [("GET", 2), ("incr", 2), ("SHUTDOWN", 1), ("CONFIG", 1)])
def test_a_command_about_one_node_is_not_repeated_when_its_outcome_is_unknown(
    node: Node, name: str, times: int
) -> None:
    node.answers = [Refusal(grpc.StatusCode.UNAVAILABLE), rejected()]
    with client_of(node) as client, pytest.raises(RedanError):
        client.execute(name, "x")
    assert len(node.asked) == times


def test_a_call_ends_within_its_time_limit_with_the_last_error(node: Node) -> None:
    node.answers = [not_applied()]
    with client_of(node, settings=SHORT) as client, pytest.raises(RedanError) as raised:
        client.increment("n")
    # The time limit may end the last attempt while it waits for its answer.
    assert raised.value.reason == "NO_LEADER" or raised.value.code == "DEADLINE_EXCEEDED"
    assert len(node.asked) >= 1


def test_the_leader_is_asked_and_not_the_node_that_names_it(node: Node) -> None:
    with stand_in() as leader:
        node.status = lambda: leading("n2", n1=node.address, n2=leader.address)
        leader.answers = [SUM]
        with client_of(node) as client:
            client.increment("n")
            client.increment("n")
        assert (len(node.asked), len(leader.asked), node.status_calls) == (0, 2, 1)


def test_a_new_term_makes_the_client_look_for_the_leader_again(node: Node) -> None:
    with stand_in() as next_leader:
        node.answers = [kv_pb2.IncrementResponse(header=kv_pb2.ResponseHeader(term=2), value=1)]
        next_leader.answers = [SUM]
        with client_of(node) as client:
            assert client.increment("n") == 1
            node.status = lambda: leading("n2", n1=node.address, n2=next_leader.address)
            assert client.increment("n") == 7


def test_a_node_that_fails_is_left_for_another_one(node: Node) -> None:
    with stand_in() as other:
        node.answers = [not_applied("SHUTTING_DOWN")]
        # The other one does not know yet that the leader has gone, and takes the write itself.
        other.status = lambda: leading("n1", n2=other.address, n1=node.address)
        other.answers = [SUM]
        with client_of(node, other) as client:
            assert client.increment("n") == 7
        # After some time the first one may be asked again.
        assert len(node.asked) >= 1
        assert len(other.asked) == 1


def test_a_node_that_does_not_answer_is_passed_over(node: Node) -> None:
    node.answers = [SUM]
    with Client(["127.0.0.1:1", node.address], settings=QUICK) as client:
        assert client.increment("n") == 7


def test_the_password_goes_with_every_call(node: Node) -> None:
    node.answers = [SUM]
    with client_of(node, password="secret") as client:
        client.increment("n")
    assert node.metadata[0]["authorization"] == "Bearer secret"


async def test_the_client_for_asyncio_repeats_the_same(node: Node) -> None:
    node.answers = [unknown(), not_applied(), SUM]
    async with AsyncClient(node.address, settings=QUICK) as client:
        assert await client.increment("n") == 7
        node.answers = [rejected()]
        with pytest.raises(RequestError):
            await client.increment("n")
    assert len({request.request_id for request in node.requests()[:3]}) == 1
    assert len(node.asked) == 4


def test_of_two_connections_that_threads_make_to_one_node_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("127.0.0.1:1")
    made: list[Any] = []
    closed: list[Any] = []

    class Channel:
        def close(self) -> None:
            closed.append(self)

    def make(address: str, options: object) -> Channel:
        channel = Channel()
        made.append(channel)
        if len(made) == 1:
            client._channel(address)  # what another thread does meanwhile
        return channel

    monkeypatch.setattr(grpc, "insecure_channel", make)
    assert client._channel("127.0.0.1:1") is made[1]
    assert closed == [made[0]]
    client.close()
    assert closed == made


@pytest.mark.parametrize("addresses", ["", "nowhere:0", "a:b", "::1", []])
def test_what_is_no_address_is_refused_by_name(addresses: Any) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(addresses)


@pytest.mark.parametrize("password", ["grün", "se\ncret", "se\x01cret"])
def test_a_password_that_grpc_cannot_carry_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(ValueError, match="the password has characters that gRPC") as caught:
        Client("127.0.0.1:1", password=password)
    assert password not in str(caught.value)


def test_time_limits_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="attempt_timeout is 0"):
        Settings(attempt_timeout=0)
