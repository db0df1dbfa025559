"""What the plane between nodes writes into the log, and whom it hears."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvservice.cluster import peer_plane
from kvservice.cluster.members import Addresses, Members
from kvservice.cluster.peer_plane import REFUSED_LINES_MAX, REFUSED_SECONDS, PeerPlane
from kvservice.config import Config
from persistence.disk import RealDisk
from replication.core.membership import Configuration
from replication.core.raft import Settings
from replication.peer_greeting import Introduction, NodeIdentity
from tests.harness.cluster import Cluster


async def test_whoever_invents_names_does_not_fill_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    said: list[object] = []
    monkeypatch.setattr("kvservice.logs.Log.warning", lambda _self, _event, **fields: said.append(fields["peer"]))
    monkeypatch.setattr(peer_plane, "monotonic", lambda: now_s)
    plane = PeerPlane(Config(), Members("n1", Addresses("")), tmp_path, RealDisk(), "d1", 1)
    for _ in range(3):
        plane._log_refusal("n2", "ipv4:127.0.0.1:1", "why")
    assert said == ["n2"], "once for each reason"
    for number in range(10 * REFUSED_LINES_MAX):
        plane._log_refusal(f"x{number}", "ipv4:127.0.0.1:1", "why")
    assert len(said) == REFUSED_LINES_MAX
    plane._log_refusal("n3", "ipv4:127.0.0.1:1", "why")
    now_s += REFUSED_SECONDS
    plane._log_refusal("n3", "ipv4:127.0.0.1:1", "why")
    assert said[REFUSED_LINES_MAX:] == ["n3"], "who was not named is named later"


def test_a_peer_that_does_not_honour_leases_is_named_with_both_settings_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.setattr(
        "kvservice.logs.Log.warning", lambda _self, event, **fields: said.append({"is": event} | fields)
    )
    config = Config(read_mode="lease", election_timeout_ms=400)
    plane = PeerPlane(config, Members("n1", Addresses("")), tmp_path, RealDisk(), "d1", 2)
    assert (plane.identity.read_mode, plane.identity.election_timeout_ms) == ("lease", 400)
    cluster = Cluster(settings=Settings(read_lease=True))
    plane._node = cluster["n1"].node
    plane.peers._is_stopped = True
    for mode, timeout_ms in [("lease", 400), ("stale", 400), ("stale", 400), ("lease", 300), ("lease", 500), ("", 0)]:
        theirs = NodeIdentity("n2", 1, read_mode=mode, election_timeout_ms=timeout_ms)
        plane._greeted(plane.identity.accept(theirs.greeting("n1")))
    common = {"is": "lease_not_honoured", "peer": "n2", "read_mode": "lease", "election_timeout_ms": 400}
    assert said == [
        common | {"peer_read_mode": mode, "peer_election_timeout_ms": timeout_ms}
        for mode, timeout_ms in [("stale", 400), ("lease", 300), ("", 0)]
    ]
    plane._node = Cluster()["n1"].node
    plane._greeted(plane.identity.accept(NodeIdentity("n2", 1).greeting("n1")))
    assert len(said) == 3, "a node that needs no leases does not ask for them"


async def test_what_a_member_told_is_kept_until_it_greets_again_or_leaves(tmp_path: Path) -> None:
    plane = PeerPlane(Config(), Members("n1", Addresses("")), tmp_path, RealDisk(), "d1", 1)
    for name in ("n2", "n3", "n4"):
        plane.hearing.told(name, 7)
    plane._greeted(Introduction("n2", 1, "", "", "", 0))
    plane.configuration_changed(Configuration(("n1", "n2", "n3")), 1)
    assert [plane.hearing.index_of(name) for name in ("n2", "n3", "n4")] == [0, 7, 0]
    assert not plane.hearing.hears("n3"), "there is no stream"
