"""`redan ctl` against a node in this process and against stand-ins: what it prints, whom it asks, how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from kvservice.api.status import status_of
from kvservice.cli import run_command
from kvservice.cluster import client
from kvservice.cluster.errors import NotTheLeader
from kvservice.cluster.overview import Overview
from redan.cluster.v1 import cluster_pb2
from tests.kvservice.api.local_node import serving

SERVICE = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"]
CLOSED = "127.0.0.1:1"


async def ctl(*arguments: str) -> int:
    return await asyncio.to_thread(run_command, ["ctl", *arguments])


async def test_status_of_a_node_alone_shows_that_it_leads(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, _):
        assert await ctl("status", "--endpoint", str(node.api.address)) == 0
        heading, columns, row = capsys.readouterr().out.splitlines()
        assert heading == "cluster c0ffee, leader n1"
        shown = dict(zip(columns.split(), row.split(), strict=True))
        assert (shown["NODE"], shown["ROLE"], shown["READY"]) == ("n1", "leader", "yes")
        assert await ctl("status", "-o", "json", "--endpoint", str(node.api.address)) == 0
        seen = json.loads(capsys.readouterr().out)
        assert (seen["leader"], seen["problems"]) == ("n1", [])
        assert seen["nodes"][0]["commit_index"] == node.service.node.commit_index
        node.health.reasons.append("draining")
        assert await ctl("status", "--endpoint", str(node.api.address)) == 1
        assert "n1 is not ready: draining" in capsys.readouterr().err


async def test_members_and_snapshots_are_printed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, _):
        endpoint = ("--endpoint", str(node.api.address))
        assert await ctl("members", *endpoint) == 0
        assert capsys.readouterr().out.split()[:7] == ["NAME", "ROLE", "PEER", "RESP", "GRPC", "n1", "leader"]
        assert await ctl("members", "-o", "json", *endpoint) == 0
        (member,) = json.loads(capsys.readouterr().out)
        assert (member["name"], member["voter"], member["leader"]) == ("n1", True, True)
        assert await ctl("transfer", "-o", "json", *endpoint, "n1") == 0
        assert json.loads(capsys.readouterr().out)["leader"] == "n1"


async def test_what_the_cluster_refuses_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, _):
        endpoint = ("--endpoint", str(node.api.address))
        for arguments, text in (
            (("remove", "n9"), "'n9' is not a member; members are n1"),
            (("remove", "n1"), "n1: the last voter"),
            (("promote", "n9"), "'n9' is not a member"),
            (("transfer",), "there is no other voter that answers"),
        ):
            assert await ctl(*arguments, *endpoint) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("redan: ")
            assert text in line


async def test_a_password_is_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("secret\n")
    async with serving(requirepass="secret") as (node, _):
        endpoint = ("--endpoint", str(node.api.address))
        assert await ctl("members", *endpoint) == 1
        assert "Authentication required" in capsys.readouterr().err
        assert await ctl("members", *endpoint, "--password-file", str(tmp_path / "password")) == 0
        assert await ctl("members", *endpoint, "--password-file", str(tmp_path / "absent")) == 2


@pytest.mark.parametrize("password", ["grün".encode(), "grün".encode("latin-1"), b"se\x01cret", b"se\ncret"])
def test_a_password_that_grpc_cannot_carry_is_refused_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], password: bytes
) -> None:
    (tmp_path / "password").write_bytes(password)
    for command in (["ctl", "members"], ["ctl", "get", "k"]):
        assert run_command([*command, "--password-file", str(tmp_path / "password")]) == 2
        said = f"redan: {tmp_path}/password has characters that gRPC cannot carry: it takes printable ASCII\n"
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--endpoint", "nowhere"),
        ("add", "a b", "127.0.0.1:1"),
        ("add", "n2", "nowhere"),
        ("add", "n2", "127.0.0.1:0"),
        ("members", "-o", "xml"),
        ("nothing",),
    ],
)
def test_usage_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["ctl", *arguments]) == 2
    assert capsys.readouterr().err


def test_an_endpoint_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["ctl", "members", "--timeout", "0.3", "--endpoint", CLOSED]) == 1
    assert f"redan: {CLOSED}: cannot be reached" in capsys.readouterr().err


Answer = Callable[[Any], Any]


@asynccontextmanager
async def stand_in(**answers: Answer) -> AsyncIterator[str]:
    """Serve some methods of ClusterService; an answer that is an exception ends the call with its status."""

    def handler(method: str, answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
        request = getattr(cluster_pb2, SERVICE.methods_by_name[method].input_type.name)

        async def handle(asked: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            answered = answer(asked)
            if isinstance(answered, status_pb2.Status):
                await context.abort_with_status(rpc_status.to_status(answered))
            return answered

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    server = grpc.aio.server()
    methods = {method: handler(method, answer) for method, answer in answers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def refusal(reason: str, **metadata: str) -> status_pb2.Status:
    status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message=f"because of {reason}")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="redan", metadata=metadata))
    return status


async def test_a_node_that_does_not_lead_is_left_for_the_leader(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, str]] = []

    def added(request: cluster_pb2.AddMemberRequest) -> cluster_pb2.AddMemberResponse:
        asked.append((request.name, request.peer_address))
        return cluster_pb2.AddMemberResponse(members=[cluster_pb2.Member(name="n4", peer_address="h:1")])

    async with (
        stand_in(AddMember=added) as leader,
        stand_in(AddMember=lambda _: refusal("NOT_LEADER", leader="n1", leader_grpc_address=leader)) as follower,
    ):
        assert await ctl("add", "n4", "h:1", "--endpoint", CLOSED, "--endpoint", follower) == 0
    assert asked == [("n4", "h:1")]
    assert capsys.readouterr().out.split()[5:8] == ["n4", "learner", "h:1"]


async def test_an_endpoint_that_is_another_server_is_told_from_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    async with stand_in(ListMembers=lambda _: cluster_pb2.ListMembersResponse()) as elsewhere:
        assert await ctl("transfer", "--endpoint", elsewhere) == 1
    assert f"redan: {elsewhere}: not the gRPC address of a node" in capsys.readouterr().err


async def test_while_nobody_leads_the_same_nodes_are_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Any] = [refusal("NOT_LEADER")] * 3
    answers.append(cluster_pb2.TransferLeadershipResponse(leader="n2", term=7))
    async with stand_in(TransferLeadership=lambda _: answers.pop(0)) as node:
        assert await ctl("transfer", "n2", "--endpoint", node) == 0
    assert capsys.readouterr().out == "n2 leads\n"


@pytest.mark.parametrize("command", [("transfer",), ("remove", "n3"), ("add", "n4", "h:1"), ("promote", "n3")])
async def test_without_a_leader_it_ends_soon_and_says_that_nothing_was_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(client, "LEADER_SECONDS", 0.3)
    alone = status_of(NotTheLeader("", ""))
    methods = ("TransferLeadership", "RemoveMember", "AddMember", "PromoteMember")
    async with stand_in(**dict.fromkeys(methods, lambda _: alone)) as node:
        async with asyncio.timeout(5):
            assert await ctl(*command, "--endpoint", CLOSED, "--endpoint", node) == 1
    said = "this node does not lead, and knows no leader; nothing was changed"
    assert capsys.readouterr().err == f"redan: {node}: {said}\n"


async def test_an_attempt_that_was_cut_off_may_have_been_carried_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LEADER_SECONDS", 0.0)
    answers = [status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="Socket closed")]
    answers.append(status_of(NotTheLeader("", "")))
    async with stand_in(RemoveMember=lambda _: answers.pop(0)) as node:
        assert await ctl("remove", "n3", "--endpoint", node) == 1
    assert "nothing was changed; but an attempt before had no answer: look at the members" in capsys.readouterr().err


async def test_status_names_members_that_do_not_answer_and_states_that_differ(
    capsys: pytest.CaptureFixture[str],
) -> None:
    members = [
        cluster_pb2.Member(name="n1", voter=True),
        cluster_pb2.Member(name="n2", voter=True, grpc_address=CLOSED),
    ]
    peers = [cluster_pb2.Peer(name="n2", lag_entries=3, digest=cluster_pb2.DIGEST_STATE_DIVERGED, active=True)]
    state = cluster_pb2.StatusResponse(
        cluster_id="c", node="n1", role=cluster_pb2.ROLE_LEADER, members=members, peers=peers, last_index=8
    )
    async with stand_in(Status=lambda _: state) as node:
        assert await ctl("status", "--endpoint", node) == 1
    shown = capsys.readouterr()
    row = shown.out.splitlines()[3].split()
    assert (row[0], row[6], row[7]) == ("n2", "3", "diverged")
    assert "n2 does not answer" in shown.err
    assert "n2 has diverged" in shown.err


@pytest.mark.parametrize(
    ("is_active", "digest", "shown"),
    [
        (True, cluster_pb2.DIGEST_STATE_EQUAL, ("3", "equal")),
        (False, cluster_pb2.DIGEST_STATE_EQUAL, ("-", "-")),
        (False, cluster_pb2.DIGEST_STATE_DIVERGED, ("-", "diverged")),
    ],
)
def test_of_a_member_that_the_leader_does_not_hear_of_only_what_stays_true_is_shown(
    is_active: bool, digest: cluster_pb2.DigestState, shown: tuple[str, str]
) -> None:
    peer = cluster_pb2.Peer(name="n2", lag_entries=3, digest=digest, active=is_active)
    (row,) = Overview("c", "n1", {"n2": None}, {}, {"n2": peer}, []).rows()
    assert row[6:9] == (*shown, "no answer")
