"""How a pod comes into its cluster: the flags that its entry point chooses, and real pods that live through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from helm.redan.files import start
from tests.helm.charts import one
from tests.helm.pods import PodSet, ctl

DOMAIN = "peers.example"


def joining(*ordinals: int) -> list[str]:
    return ["--join", ",".join(f"r-{ordinal}.{DOMAIN}:7401" for ordinal in ordinals)]


def founding(*ordinals: int) -> list[str]:
    members = ",".join(f"r-{ordinal}=r-{ordinal}.{DOMAIN}:7401" for ordinal in ordinals)
    return ["--initial-cluster", members]


@pytest.mark.parametrize(
    ("ordinal", "replicas", "members", "wanted"),
    [
        (0, 3, None, founding(0, 1, 2)),  # D: nobody knows of a cluster
        (2, 3, None, founding(0, 1, 2)),
        (1, 3, {"r-0", "r-1", "r-2"}, founding(0, 1, 2)),  # D: its disk is gone
        (3, 5, {"r-0", "r-1", "r-2"}, joining(0, 1, 2, 4)),  # B: scaled from 3 to 5
        (4, 5, {"r-0", "r-1", "r-2", "r-4"}, founding(0, 1, 2, 3, 4)),  # D: it joined before, and lost its disk
        (4, 3, None, joining(0, 1, 2)),  # C: the file is older than the pod
        (1, 3, {"r-0"}, joining(0, 2)),  # B: scaled from 1 to 3
        (0, 1, None, []),
    ],
)
def test_flags_follow_from_the_members_and_the_ordinal(
    ordinal: int, replicas: int, members: set[str] | None, wanted: list[str]
) -> None:
    assert start.flags(f"r-{ordinal}", replicas, DOMAIN, members) == wanted


def test_founders_stand_in_the_order_of_their_numbers() -> None:
    assert start.flags("a-b-10", 12, DOMAIN, None)[1].split(",")[9:] == [
        f"a-b-{ordinal}=a-b-{ordinal}.{DOMAIN}:7401" for ordinal in (9, 10, 11)
    ]


def test_a_directory_is_taken_only_when_it_has_a_log(tmp_path: Path) -> None:
    assert not start.has_log(tmp_path)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "wal").mkdir()
    assert not start.has_log(tmp_path)
    (tmp_path / "wal" / "segment").touch()
    assert start.has_log(tmp_path)


@pytest.mark.timeout(600)
def test_pods_found_a_cluster_are_scaled_and_lose_a_volume(tmp_path: Path) -> None:
    options = ("--set", "snapshots.enabled=true")
    with PodSet(tmp_path, *options) as pods:
        pods.scale(3)
        pods.wait_until_ready()
        assert pods.pods[0].client().set("kept", "yes")
        assert pods.pods[2].client().get("kept") == b"yes"

        # What the CronJob runs every night.
        (container,) = one("CronJob", *options)["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        ended = pods.execute(*container["command"], *container["args"])
        assert ended.returncode == 0, ended.stderr
        assert all(any((pod.volume / "snapshots").glob("*.snap")) for pod in pods.pods)

        # B: two more, of which nobody has heard, in a cluster that has only three members.
        pods.scale(5)
        pods.wait_until_ready()
        for ordinal in (3, 4):
            assert "voter" in ctl(pods, "promote", f"keys-redan-{ordinal}")
        assert pods.pods[4].client().get("kept") == b"yes"

        # A: one goes in order, and its container comes back with its volume.
        assert pods.pods[1].delete() == 0
        pods.pods[1].start()
        pods.pods[1].wait_until_ready()

        # D: one loses its volume, and comes back as the member that it was.
        for ordinal in (2, 4):
            pods.pods[ordinal].kill()
            pods.pods[ordinal].lose_volume()
            pods.pods[ordinal].start()
            pods.pods[ordinal].wait_until_ready()
            assert pods.pods[ordinal].client().get("kept") == b"yes"
        assert ctl(pods, "members").count("voter") == 4
        assert "no leader" not in ctl(pods, "status")
