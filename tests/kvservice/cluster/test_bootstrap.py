"""How a node with an empty directory begins: every case of the decision, and the questions it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from kvservice.cluster import bootstrap as module
from kvservice.cluster.bootstrap import Answer, BootstrapRefused, Newcomer, bootstrap, decide, join
from kvservice.cluster.charter import Charter, decode, encode
from redan.raft.v1 import raft_pb2
from replication.core import membership
from replication.core.membership import Configuration

NAMES = ("n1", "n2", "n3")
ADDRESSES = {name: f"{name}:7401" for name in NAMES}
FIRST = Configuration(NAMES, addresses=ADDRESSES)
FOUNDERS = {"n1": "id-n1", "n2": "id-n2", "n3": "id-n3"}
ME = Newcomer("n2", "id-n2", "n2:7401")


def fresh(name: str, configuration: Configuration = FIRST) -> Answer:
    return Answer(name, True, f"id-{name}", "", configuration, {}, "", 0, 0)


def settled(name: str, founders: dict[str, str] = FOUNDERS, **fields: object) -> Answer:
    answer = Answer(name, False, "", "id-n1", FIRST, founders, "n1", 10, 4)
    return answer._replace(**fields)  # type: ignore[arg-type]


def decided(*answers: Answer | None, newcomer: Newcomer = ME, waited_seconds: float = 0.0) -> Charter | None:
    by_name = dict(zip(("n1", "n3"), answers, strict=True))
    return decide(newcomer, FIRST, by_name, waited_seconds=waited_seconds)


def test_a_all_fresh_members_found_the_same_cluster_each_by_itself() -> None:
    charters = []
    for name in NAMES:
        others = {other: fresh(other) for other in NAMES if other != name}
        charters.append(decide(Newcomer(name, f"id-{name}", ""), FIRST, others, waited_seconds=0))
    assert charters == [Charter("id-n1", FIRST, 0, FOUNDERS)] * 3


def test_a_nobody_founds_while_a_member_has_not_answered() -> None:
    assert decided(fresh("n1"), None, waited_seconds=1000) is None


def test_a_different_lists_of_members_found_nothing() -> None:
    other = Configuration(("n1", "n2"), addresses={"n1": "n1:7401", "n2": "n2:7401"})
    with pytest.raises(BootstrapRefused, match="n1 was started with another initial_cluster"):
        decided(fresh("n1", other), fresh("n3"))


def test_a_what_could_not_be_read_founds_nothing() -> None:
    assert decided(fresh("n1"), fresh("n3"), newcomer=ME._replace(may_found=False)) is None


def test_b_a_founder_that_comes_late_begins_like_the_others() -> None:
    assert decided(settled("n1"), settled("n3")) == Charter("id-n1", FIRST, 0, FOUNDERS)
    assert decided(settled("n1"), fresh("n3")) == Charter("id-n1", FIRST, 0, FOUNDERS)


def test_b_a_founder_that_comes_late_waits_for_all_answers_and_at_last_for_the_leader_alone() -> None:
    assert decided(settled("n1"), None) is None
    assert decided(settled("n1", leader=""), None, waited_seconds=1000) is None
    charter = decided(settled("n1"), None, waited_seconds=module.LATE_SECONDS)
    assert charter is not None
    assert charter.is_quarantined


def test_b_a_founder_among_other_founders_than_its_settings_name_is_refused() -> None:
    with pytest.raises(BootstrapRefused, match="was founded by n1, n2, and initial_cluster names n1"):
        decided(settled("n1", {"n1": "id-n1", "n2": "id-n2"}), fresh("n3"))


@pytest.mark.parametrize("others", [(settled("n1", {**FOUNDERS, "n2": "gone"}), None), (settled("n1"), "n3-differs")])
def test_c_a_member_with_another_directory_begins_quarantined(others: tuple[Answer, Answer | str | None]) -> None:
    first, second = others
    last = settled("n3", {**FOUNDERS, "n2": "gone"}) if second == "n3-differs" else None
    if last is None:
        assert decided(first, last) is None
    charter = decided(first, last, waited_seconds=module.LATE_SECONDS)
    assert charter is not None
    assert charter.is_quarantined
    assert (charter.cluster_id, charter.configuration, charter.term) == ("id-n1", FIRST, 4)


def test_c_a_directory_that_could_not_be_read_begins_quarantined() -> None:
    charter = decided(settled("n1"), settled("n3"), newcomer=ME._replace(may_found=False))
    assert charter is not None
    assert charter.is_quarantined


def test_c_the_configuration_is_that_of_the_member_who_knows_most() -> None:
    grown = Configuration(("n1", "n2", "n3", "n4"))
    charter = decided(settled("n1", {}, commit_index=5), settled("n3", {}, commit_index=9, configuration=grown))
    assert charter is not None
    assert charter.configuration == grown


def test_d_who_was_removed_is_refused_and_told_how_to_come_back() -> None:
    without = Configuration(("n1", "n3"))
    with pytest.raises(BootstrapRefused, match=r"n2 is no member .* start it with --join"):
        decided(settled("n1", configuration=without), settled("n3"))
    # Without a leader the member may only lag behind.
    assert decided(settled("n1", configuration=without, leader=""), None) is None


def test_d_members_of_two_clusters_are_refused() -> None:
    with pytest.raises(BootstrapRefused, match="n1 to id-n1, n3 to other"):
        decided(settled("n1"), settled("n3", cluster_id="other"))


class Nodes:
    """Answers by address; an address that has none is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
        self.introductions: dict[str, Callable[[], raft_pb2.IntroduceResponse]] = {}
        self.joins: dict[str, list[raft_pb2.JoinResponse | Exception]] = {}
        self.asked: list[str] = []

    async def introduce(
        self, address: str, request: raft_pb2.IntroduceRequest, timeout_seconds: float
    ) -> raft_pb2.IntroduceResponse:
        await asyncio.sleep(0)
        self.asked.append(address)
        if address not in self.introductions:
            raise OSError("connection refused")
        return self.introductions[address]()

    async def join(self, address: str, request: raft_pb2.JoinRequest, timeout_seconds: float) -> raft_pb2.JoinResponse:
        await asyncio.sleep(0)
        self.asked.append(address)
        assert (request.name, request.peer_address) == ("n2", "n2:7401")
        answer = self.joins[address].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    return Nodes(monkeypatch)


def says_fresh(name: str) -> Callable[[], raft_pb2.IntroduceResponse]:
    encoded = membership.encode(FIRST)
    return lambda: raft_pb2.IntroduceResponse(
        name=name, is_fresh=True, fresh_cluster_id=f"id-{name}", configuration=encoded
    )


async def test_a_member_asks_until_all_have_answered(nodes: Nodes) -> None:
    nodes.introductions["n1:7401"] = says_fresh("n1")
    nodes.introductions["n3:7401"] = says_fresh("n1")  # somebody else's address
    founding = asyncio.ensure_future(bootstrap(ME, FIRST, nodes))
    async with asyncio.timeout(60):
        while len(nodes.asked) < 6:
            await asyncio.sleep(0)
        assert not founding.done()
        nodes.introductions["n3:7401"] = says_fresh("n3")
        assert await founding == Charter("id-n1", FIRST, 0, FOUNDERS)


def says_settled(name: str, addresses: dict[str, str]) -> Callable[[], raft_pb2.IntroduceResponse]:
    encoded = membership.encode(FIRST._replace(addresses=addresses))
    return lambda: raft_pb2.IntroduceResponse(
        name=name, cluster_id="id-n1", configuration=encoded, founders=FOUNDERS, leader="n1", commit_index=10, term=4
    )


@pytest.mark.parametrize("other", ["fresh", "settled"])
async def test_d_a_second_node_of_a_name_is_refused_while_the_first_answers(nodes: Nodes, other: str) -> None:
    moved = {**ADDRESSES, "n2": "moved:7401"}
    for name in ("n1", "n3"):
        nodes.introductions[f"{name}:7401"] = says_settled(name, moved) if other == "settled" else says_fresh(name)
    twin = says_settled("n2", moved) if other == "settled" else says_fresh("n2")
    nodes.introductions["moved:7401" if other == "settled" else "n2:7401"] = twin
    me = ME._replace(directory_id="another", peer_address="elsewhere:7401")
    with pytest.raises(BootstrapRefused, match=r"another node named n2 lives at (moved|n2):7401"):
        await bootstrap(me, FIRST, nodes)


async def test_a_node_that_answers_itself_at_its_own_address_is_no_twin(nodes: Nodes) -> None:
    for name in NAMES:
        nodes.introductions[f"{name}:7401"] = says_fresh(name)
    assert await bootstrap(ME, FIRST, nodes) == Charter("id-n1", FIRST, 0, FOUNDERS)
    assert "n2:7401" in nodes.asked


async def test_a_node_alone_founds_its_cluster_without_asking(nodes: Nodes) -> None:
    alone = Configuration(("n2",), addresses={"n2": "n2:7401"})
    assert await bootstrap(ME, alone, nodes) == Charter("id-n2", alone, 0, {"n2": "id-n2"})
    assert nodes.asked == []


async def test_who_joins_follows_to_the_leader_and_begins_quarantined(nodes: Nodes) -> None:
    grown = Configuration(("n1", "n3"), learners=("n2",))
    nodes.joins["n3:7401"] = [OSError("refused"), raft_pb2.JoinResponse(leader="n1", leader_address="n1:7401")]
    nodes.joins["n1:7401"] = [
        raft_pb2.JoinResponse(accepted=True, cluster_id="id-n1", configuration=membership.encode(grown))
    ]
    async with asyncio.timeout(60):
        charter = await join(ME, ["n3:7401"], nodes)
    assert nodes.asked == ["n3:7401", "n3:7401", "n1:7401"]
    assert charter == Charter("id-n1", grown, 0, {}, is_quarantined=True)


async def test_who_is_refused_by_name_does_not_ask_again(nodes: Nodes) -> None:
    metadata = grpc.aio.Metadata()
    refusal = grpc.aio.AioRpcError(
        grpc.StatusCode.FAILED_PRECONDITION, metadata, metadata, "a member of this name lives"
    )
    nodes.joins["n1:7401"] = [refusal]
    with pytest.raises(BootstrapRefused, match="n1:7401 refuses: a member of this name lives"):
        await join(ME, ["n1:7401"], nodes)


def test_a_charter_comes_back_whole_and_other_bytes_are_refused() -> None:
    charter = Charter("id-n1", FIRST, 7, FOUNDERS, is_quarantined=True, term=9, latest=Configuration(("n1", "n4")))
    assert decode(encode(charter)) == charter
    for wrong in (b"", b"\x00", b"\x98\x09\xa0\xc4\x00\x00\x80\xc2\x00\xc4\x00", encode(charter)[:-1]):
        with pytest.raises(ValueError, match=r"charter"):
            decode(wrong)
