"""Pipelines: what is sent together, what comes back, and what is sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
from stand_in import Node, Refusal, stand_in

from redan_client import AsyncClient, Client, NotAppliedError, OutcomeUnknownError, RequestError, Settings
from redan_client.batches import COMMANDS_PER_MESSAGE, MESSAGES_PER_STREAM
from redan_client.stubs import kv_pb2

QUICK = Settings(timeout=90.0, attempt_timeout=30.0, first_pause=0.001, longest_pause=0.01)
OK = kv_pb2.Value(status="OK")
Answer = Callable[[kv_pb2.PipelineRequest], kv_pb2.PipelineResponse | None]


@pytest.fixture
def node() -> Iterator[Node]:
    with stand_in() as serving:
        yield serving


def failed(reason: str, outcome: kv_pb2.Outcome) -> kv_pb2.Value:
    return kv_pb2.Value(error=kv_pb2.CommandError(code=10, reason=reason, outcome=outcome, message="it failed"))


def values(*given: kv_pb2.Value) -> Answer:
    return lambda request: kv_pb2.PipelineResponse(batch_id=request.batch_id, values=given)


def all_ok(request: kv_pb2.PipelineRequest) -> kv_pb2.PipelineResponse:
    return kv_pb2.PipelineResponse(batch_id=request.batch_id, values=[OK] * len(request.commands))


def names(request: kv_pb2.PipelineRequest) -> list[bytes]:
    return [command.args[1] for command in request.commands]


def test_results_come_in_order_as_python_has_them(node: Node) -> None:
    node.answers = [
        values(OK, kv_pb2.Value(), kv_pb2.Value(integer=3), kv_pb2.Value(bulk=b"v"), kv_pb2.Value(integer=1500))
    ]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline().set("a", 1).set("a", 2, condition="if_absent", ttl=1.5).increment("n", 3)
        assert pipeline.get("b").ttl("a").execute() == [True, False, 3, b"v", 1.5]
        assert len(pipeline) == 0
    (request,) = node.requests()
    assert [list(command.args) for command in request.commands] == [
        [b"SET", b"a", b"1"],
        [b"SET", b"a", b"2", b"NX", b"PX", b"1500"],
        [b"INCRBY", b"n", b"3"],
        [b"GET", b"b"],
        [b"PTTL", b"a"],
    ]


def test_many_commands_are_sent_in_several_messages_and_streams(node: Node) -> None:
    count = COMMANDS_PER_MESSAGE * (MESSAGES_PER_STREAM + 2)
    node.answers = [all_ok]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline()
        for number in range(count):
            pipeline.set(f"k{number}", number)
        assert pipeline.execute() == [True] * count
    assert [name for request in node.requests() for name in names(request)] == [
        b"k%d" % number for number in range(count)
    ]
    assert max(len(request.commands) for request in node.requests()) == COMMANDS_PER_MESSAGE


def test_what_was_not_answered_is_sent_again_with_the_same_ids(node: Node) -> None:
    node.answers = [all_ok, Refusal(grpc.StatusCode.UNAVAILABLE), all_ok]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline()
        for number in range(COMMANDS_PER_MESSAGE + 3):
            pipeline.increment(f"n{number}")
        assert len(pipeline.execute()) == COMMANDS_PER_MESSAGE + 3
    first, lost, again = node.requests()
    assert len(first.commands) == COMMANDS_PER_MESSAGE
    assert names(again) == names(lost)
    assert [command.request_id for command in again.commands] == [command.request_id for command in lost.commands]


def test_only_the_commands_that_the_cluster_refused_or_lost_are_sent_again(node: Node) -> None:
    node.answers = [
        values(
            OK,
            failed("NO_LEADER", kv_pb2.OUTCOME_NOT_APPLIED),
            failed("WRONG_TYPE", kv_pb2.OUTCOME_REJECTED),
            failed("LEADERSHIP_LOST", kv_pb2.OUTCOME_UNKNOWN),
        ),
        all_ok,
    ]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline().set("a", 1).set("b", 2).set("c", 3).set("d", 4)
        results = pipeline.execute(raise_errors=False)
    assert isinstance(results[2], RequestError)
    assert [results[0], results[1], results[3]] == [True, True, True]
    assert names(node.requests()[1]) == [b"b", b"d"]


def test_without_request_ids_a_lost_stream_is_an_error_for_each_command_without_an_answer(node: Node) -> None:
    node.answers = [all_ok, Refusal(grpc.StatusCode.UNAVAILABLE)]
    with Client(node.address, settings=QUICK, request_ids=False) as client:
        pipeline = client.pipeline()
        for number in range(COMMANDS_PER_MESSAGE + 1):
            pipeline.increment(f"n{number}")
        results = pipeline.execute(raise_errors=False)
    assert isinstance(results[-1], OutcomeUnknownError)
    assert len(node.asked) == 2


NOT_THE_ANSWERS: dict[str, Answer] = {
    "the stream ends": lambda _: None,
    "too few results": values(OK),
    "results of another message": lambda _: kv_pb2.PipelineResponse(batch_id=7, values=[OK, OK]),
}


@pytest.mark.parametrize("answer", NOT_THE_ANSWERS.values(), ids=NOT_THE_ANSWERS)
def test_a_message_without_its_answer_has_an_unknown_outcome(node: Node, answer: Answer) -> None:
    node.answers = [answer]
    with Client(node.address, settings=QUICK, request_ids=False) as client:
        results = client.pipeline().increment("a").increment("b").execute(raise_errors=False)
    assert [(type(result), result.code) for result in results] == [(OutcomeUnknownError, "UNKNOWN")] * 2
    assert len(node.asked) == 1


@pytest.mark.parametrize("answer", NOT_THE_ANSWERS.values(), ids=NOT_THE_ANSWERS)
async def test_a_message_without_its_answer_is_sent_again_with_the_same_ids(node: Node, answer: Answer) -> None:
    node.answers = [answer, all_ok]
    async with AsyncClient(node.address, settings=QUICK) as client:
        assert await client.pipeline().set("a", 1).set("b", 2).execute() == [True, True]
    lost, again = node.requests()
    assert lost == again


def test_a_command_that_may_have_been_applied_is_not_made_undone_by_a_refused_repetition(node: Node) -> None:
    lost = failed("LEADERSHIP_LOST", kv_pb2.OUTCOME_UNKNOWN)
    refused = failed("OUT_OF_MEMORY", kv_pb2.OUTCOME_NOT_APPLIED)
    wrong = failed("WRONG_TYPE", kv_pb2.OUTCOME_REJECTED)
    node.answers = [
        values(failed("NO_LEADER", kv_pb2.OUTCOME_NOT_APPLIED), lost, lost, lost),
        values(refused, refused, wrong, OK),
    ]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline().set("a", 1).set("b", 1).set("c", 1).set("d", 1)
        results = pipeline.execute(raise_errors=False)
    assert [type(result) for result in results] == [NotAppliedError, OutcomeUnknownError, RequestError, bool]
    assert results[1].reason == "LEADERSHIP_LOST"
    assert "OUT_OF_MEMORY" in str(results[1])


@pytest.mark.parametrize(
    "broken",
    [lambda _: Refusal(grpc.StatusCode.UNAVAILABLE), *NOT_THE_ANSWERS.values()],
    ids=["the connection breaks", *NOT_THE_ANSWERS],
)
def test_the_commands_of_a_lost_message_are_not_made_undone_by_a_refused_repetition(
    node: Node, broken: Callable[[kv_pb2.PipelineRequest], object]
) -> None:
    refused = failed("OUT_OF_MEMORY", kv_pb2.OUTCOME_NOT_APPLIED)
    node.answers = [broken, values(refused, refused)]
    with Client(node.address, settings=QUICK) as client:
        results = client.pipeline().set("a", 1).set("b", 1).execute(raise_errors=False)
    assert [type(result) for result in results] == [OutcomeUnknownError] * 2
    assert len(node.asked) == 2


def test_what_was_never_sent_has_the_error_for_which_the_client_gave_up(node: Node) -> None:
    lost = failed("LEADERSHIP_LOST", kv_pb2.OUTCOME_UNKNOWN)
    count = COMMANDS_PER_MESSAGE * MESSAGES_PER_STREAM
    node.answers = [
        lambda request: kv_pb2.PipelineResponse(batch_id=request.batch_id, values=[lost] * len(names(request)))
    ]
    with Client(node.address, settings=QUICK) as client:
        pipeline = client.pipeline()
        for number in range(count):
            pipeline.increment(f"n{number}")
        results = pipeline.command("CONFIG", "RESETSTAT").execute(raise_errors=False)  # never sent, and not repeatable
    assert len(results) == count + 1
    assert [type(result) for result in results if not isinstance(result, OutcomeUnknownError)] == []
    assert not any(b"RESETSTAT" in names(request) for request in node.requests())


async def test_the_pipeline_for_asyncio_does_the_same_and_raises_the_first_error(node: Node) -> None:
    node.answers = [Refusal(grpc.StatusCode.UNAVAILABLE), values(OK, failed("WRONG_TYPE", kv_pb2.OUTCOME_REJECTED))]
    async with AsyncClient(node.address, settings=QUICK) as client:
        with pytest.raises(RequestError, match="it failed"):
            await client.pipeline().set("a", 1).increment("a").execute()
        assert await client.pipeline().execute() == []
    assert len(node.asked) == 2
