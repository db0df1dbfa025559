from __future__ import annotations

from kvservice.commands.info import render
from kvservice.commands.ports import GroupPort, NodePort, ServicePort, SnapshotsPort, WalStatsPort
from kvservice.starting import StartingGroup, StartingLog, StartingNode, StartingSnapshots
from tests.harness.server_plane import FakeService


class StartingService(FakeService):
    """A node before its log is open."""

    def __init__(self) -> None:
        super().__init__()
        self.node: NodePort = StartingNode()  # type: ignore[assignment]
        self.group: GroupPort = StartingGroup(self.config)  # type: ignore[assignment]
        self.wal_stats: WalStatsPort = StartingLog()  # type: ignore[assignment]
        self.snapshots: SnapshotsPort = StartingSnapshots()  # type: ignore[assignment]


def test_info_of_a_starting_node_says_that_it_loads() -> None:
    service: ServicePort = StartingService()
    text = render(service, [b"everything"])
    for field in ("loading:1", "raft_role:follower", "raft_leader:", "raft_term:0", "rdb_bgsave_in_progress:0"):
        assert f"\r\n{field}\r\n" in text
