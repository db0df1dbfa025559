"""What clients learn about the members and slots: CLUSTER, ROLE, INFO, HELLO, WAIT and WAITAOF."""

from __future__ import annotations

import pytest

from kvservice.commands.cluster_shape import endpoint_of
from kvservice.commands.ports import MemberView, PeerView, Sighting
from kvservice.commands.reply import Pending, Reply
from kvservice.stats import PeerTraffic
from tests.harness.server_plane import Caller, FakeService

LEADER = MemberView("n1", True, "127.0.0.1:7001", "127.0.0.1:7201")
FOLLOWER = MemberView("n2", True, "node2.example:7002", "node2.example:7202")
LEARNER = MemberView("n3", False, "[::1]:7003", "[::1]:7203")
UNMET = MemberView("n4", True, "", "127.0.0.1:7204")


def leader(*members: MemberView) -> Caller:
    """Return a caller of n1, which leads, and hears of all but n4."""
    caller = follower(*members)
    service = caller.service
    service.node.is_leader = True
    service.group.role = "leader"
    service.group.all_peers = [
        PeerView("n2", 9, 3, "replicate", True, "equal"),
        PeerView("n3", 5, 7, "snapshot", True, "unknown"),
        PeerView("n4", 0, 12, "probe", False, "diverged"),
    ]
    return caller


def follower(*members: MemberView) -> Caller:
    """Return a caller of n1, which follows n2, and hears of n3 but no more of n4."""
    service = FakeService()
    service.group.cluster_id = "c0ffee"
    service.group.all_members = list(members) or [LEADER, FOLLOWER, UNMET, LEARNER]
    service.group.sightings = {"n2": Sighting(True, 11), "n3": Sighting(True, 5), "n4": Sighting(False, 4)}
    service.node.is_leader = False
    service.group.role = "follower"
    return Caller(service)


def node_lines(caller: Caller) -> list[list[str]]:
    return [line.split() for line in caller.text("CLUSTER NODES").splitlines()]


def fields_of(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@pytest.mark.parametrize(
    "line",
    [
        "INFO", "NODES", "SLOTS", "SHARDS", "MYID", "MYSHARDID", "REPLICAS x", "SLAVES x", "FAILOVER",
        "MEET 127.0.0.1 1", "COUNTKEYSINSLOT 1", "GETKEYSINSLOT 1 1", "LINKS",
    ],
)  # fmt: skip
def test_a_node_alone_is_no_cluster(line: str) -> None:
    caller = Caller()
    assert caller.text(f"CLUSTER {line}") == "-ERR This instance has cluster support disabled"
    assert caller.text("READONLY") == "-ERR This instance has cluster support disabled"
    assert caller.map("HELLO")[b"mode"] == b"standalone"
    assert fields_of(caller.text("INFO"))["cluster_enabled"] == "0"


def test_a_node_with_others_is_a_cluster() -> None:
    caller = follower()
    assert caller.map("HELLO 3")[b"mode"] == b"cluster"
    told = fields_of(caller.text("INFO"))
    assert (told["redis_mode"], told["cluster_enabled"]) == ("cluster", "1")
    for line in ("READONLY", "READWRITE", "ASKING"):
        assert caller.text(line) == "OK"


def test_slots_name_the_leader_first_and_leave_out_who_cannot_be_reached() -> None:
    ids = {line[1].partition("@")[0]: line[0].encode() for line in node_lines(leader())}
    assert leader().array("CLUSTER SLOTS") == [
        [
            0,
            16383,
            [b"127.0.0.1", 7001, ids["127.0.0.1:7001"], []],
            [b"node2.example", 7002, ids["node2.example:7002"], []],
            [b"::1", 7003, ids["::1:7003"], []],
        ]
    ]


def test_all_nodes_show_the_same_cluster_with_the_leader_as_its_master() -> None:
    caller = follower()
    caller.service.node.leader_id = "n2"
    lines = node_lines(caller)
    assert [line[2] for line in lines] == ["master", "myself,slave", "slave,noaddr", "slave"]
    assert [line[3] for line in lines] == ["-", *[lines[0][0]] * 3]
    assert [line[7] for line in lines] == ["connected", "connected", "disconnected", "connected"]
    assert lines[0][1:] == ["node2.example:7002@7202", "master", "-", "0", "0", "3", "connected", "0-16383"]
    other = follower()
    other.service.node.leader_id = "n2"
    assert {line[0] for line in node_lines(other)} == {line[0] for line in lines}
    assert len({line[0] for line in lines}) == 4
    assert caller.text("CLUSTER MYID") == lines[1][0]
    assert caller.text("CLUSTER MYSHARDID") != caller.text("CLUSTER MYID")


def test_every_node_leaves_out_who_it_does_not_hear_of() -> None:
    deaf = MemberView("n4", True, "127.0.0.1:7004", "127.0.0.1:7204")
    caller = follower(LEADER, FOLLOWER, deaf, LEARNER)
    caller.service.node.leader_id = "n2"
    assert [line[7] for line in node_lines(caller)] == ["connected", "connected", "disconnected", "connected"]
    [shown] = caller.array("CLUSTER SLOTS")
    assert isinstance(shown, list)
    assert [member[1] for member in shown[2:] if isinstance(member, list)] == [7002, 7001, 7003]


def test_without_a_leader_the_node_shows_itself_and_says_that_the_state_fails() -> None:
    caller = follower()
    caller.service.node.leader_id = None
    caller.service.group.sightings = {}
    assert [line[2:4] + line[7:] for line in node_lines(caller)] == [
        ["myself,master", "-", "connected", "0-16383"],
        *[[flags, caller.text("CLUSTER MYID"), "disconnected"] for flags in ("slave", "slave,noaddr", "slave")],
    ]
    [shown] = caller.array("CLUSTER SLOTS")
    assert isinstance(shown, list)
    assert shown[:2] == [0, 16383]
    assert shown[2:] == [[b"127.0.0.1", 7001, caller.say("CLUSTER MYID"), []]]
    told = fields_of(caller.text("CLUSTER INFO"))
    assert (told["cluster_state"], told["cluster_slots_ok"], told["cluster_slots_fail"]) == ("fail", "0", "16384")


def test_cluster_info_says_what_is_served() -> None:
    told = fields_of(leader().text("CLUSTER INFO"))
    assert told["cluster_state"] == "ok"
    assert (told["cluster_slots_ok"], told["cluster_size"], told["cluster_known_nodes"]) == ("16384", "1", "4")
    assert told["cluster_current_epoch"] == "3"


def test_cluster_info_counts_messages_from_the_start() -> None:
    caller = leader()
    stats = caller.service.stats
    stats.peer_traffic = lambda: PeerTraffic(received_messages=7, sent_messages=8)
    stats.reset()
    told = fields_of(caller.text("CLUSTER INFO"))
    assert (told["cluster_stats_messages_received"], told["cluster_stats_messages_sent"]) == ("7", "8")


def shard_of(caller: Caller) -> list[tuple[Reply, ...]]:
    """Return port, role, offset and health of each member."""
    [shard] = caller.array("CLUSTER SHARDS")
    assert isinstance(shard, dict)
    assert shard[b"slots"] == [0, 16383]
    members = shard[b"nodes"]
    assert isinstance(members, list)
    return [(m[b"port"], m[b"role"], m[b"replication-offset"], m[b"health"]) for m in members if isinstance(m, dict)]


def test_shards_tell_what_a_follower_knows_of_each_member() -> None:
    caller = follower()
    caller.service.node.leader_id = "n2"
    assert shard_of(caller) == [
        (7002, b"master", 11, b"online"),
        (7001, b"replica", 10, b"online"),
        (0, b"replica", 4, b"failed"),
        (7003, b"replica", 5, b"online"),
    ]


def test_shards_tell_what_the_leader_knows_of_each_member() -> None:
    assert shard_of(leader()) == [
        (7001, b"master", 10, b"online"),
        (7002, b"replica", 9, b"online"),
        (0, b"replica", 0, b"failed"),
        (7003, b"replica", 5, b"online"),
    ]


def test_replicas_are_those_of_the_master() -> None:
    caller = leader()
    master, *others = node_lines(caller)
    assert [str(line).split()[0][2:] for line in caller.array(f"CLUSTER REPLICAS {master[0]}")] == [
        line[0] for line in others
    ]
    assert caller.text(f"CLUSTER SLAVES {others[0][0]}") == "-ERR The specified node is not a master"
    assert caller.text("CLUSTER REPLICAS nobody") == "-ERR Unknown node nobody"


@pytest.mark.parametrize("line", ["LINKS", "COUNT-FAILURE-REPORTS x"])
def test_what_nodes_do_not_keep_is_refused_with_another_reason(line: str) -> None:
    said = leader().text(f"CLUSTER {line}")
    assert said.startswith(f"-ERR CLUSTER {line.split()[0]} is not supported: ")
    assert said.endswith(", CLUSTER NODES says who is connected")


@pytest.mark.parametrize("line", ["MEET 127.0.0.1 7001", "FAILOVER", "ADDSLOTS 1", "FORGET x", "RESET"])
def test_what_only_the_log_can_change_is_refused_by_name(line: str) -> None:
    assert leader().text(f"CLUSTER {line}").startswith(f"-ERR CLUSTER {line.split()[0]} is not supported")


def test_the_leader_lists_those_that_follow_it() -> None:
    caller = leader()
    assert caller.array("ROLE") == [b"master", 10, [[b"node2.example", b"7002", b"9"], [b"::1", b"7003", b"5"]]]
    told = fields_of(caller.text("INFO replication"))
    assert (told["role"], told["connected_slaves"]) == ("master", "2")
    assert told["slave0"] == "ip=node2.example,port=7002,state=online,offset=9,lag=0"
    assert told["slave1"] == "ip=::1,port=7003,state=send_bulk,offset=5,lag=0"


def test_a_follower_takes_writes_and_so_says_master_too() -> None:
    caller = follower()
    assert caller.array("ROLE") == [b"master", 10, []]
    told = fields_of(caller.text("INFO replication"))
    assert (told["role"], told["connected_slaves"]) == ("master", "0")
    assert told["master_replid"] == fields_of(leader().text("INFO replication"))["master_replid"]


def test_info_raft_has_a_line_for_each_peer() -> None:
    caller = leader()
    caller.service.group.checkpoint = (8, 0xABC)
    caller.service.group.agreement = "diverged"
    told = fields_of(caller.text("INFO raft"))
    assert (told["raft_voters"], told["raft_learners"]) == ("n1,n2,n4", "n3")
    assert told["raft_peer_n2"] == "match=9,lag=3,state=replicate,active=1,digest=equal"
    assert told["raft_peer_n4"] == "match=0,lag=12,state=probe,active=0,digest=diverged"
    assert (told["raft_digest_state"], told["raft_digest_index"]) == ("diverged", "8")
    assert told["raft_digest"] == "0000000000000abc"


@pytest.mark.parametrize("line", ["WAIT 1 0", "WAIT 1 100", "WAIT 0 0"])
def test_a_node_alone_has_nobody_to_wait_for(line: str) -> None:
    assert Caller().say(line) == 0


def waiting(caller: Caller, line: str) -> tuple[int, list[tuple[Reply, bool]]]:
    """Return the time that a command waits for, and what it makes of copies and the leader's own disk."""
    assert isinstance(caller.say(line), Pending)
    [(timeout_ms, answer, is_enough)] = caller.service.waits
    made = [answer(copies, is_durable) for copies in (0, 1, 2) for is_durable in (False, True)]
    return timeout_ms, [(reply, is_enough(reply)) for reply in made]


def test_wait_counts_other_members() -> None:
    assert waiting(leader(), "WAIT 1 250") == (250, [(copies, copies >= 1) for copies in (0, 0, 1, 1, 2, 2)])


def test_waitaof_counts_the_own_disk_and_others() -> None:
    _, made = waiting(leader(), "WAITAOF 1 2 0")
    assert made == [
        ([0, 0], False), ([1, 0], False), ([0, 1], False), ([1, 1], False), ([0, 2], False), ([1, 2], True)
    ]  # fmt: skip
    _, made = waiting(leader(), "WAITAOF 0 1 0")
    assert [is_enough for _reply, is_enough in made] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [("h:1", ("h", 1)), ("[::1]:7", ("::1", 7)), ("", ("", 0)), ("host", ("", 0)), ("a:b:c", ("", 0))],
)
def test_addresses_are_split_into_host_and_port(address: str, endpoint: tuple[str, int]) -> None:
    assert endpoint_of(address) == endpoint
