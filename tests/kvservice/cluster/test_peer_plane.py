"""What the plane between nodes writes into the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvservice.cluster import peer_plane
from kvservice.cluster.members import Addresses, Members
from kvservice.cluster.peer_plane import REFUSED_LINES_MAX, REFUSED_SECONDS, PeerPlane
from kvservice.config import Config
from persistence.disk import RealDisk


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
