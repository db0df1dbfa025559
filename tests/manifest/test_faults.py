"""Pods of the chart that meet what is wrong: a full volume, and strangers on the port between nodes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kvservice.server import EXIT_STORAGE
from tests.harness.certificates import OPENSSL, authority, certificate
from tests.harness.cluster_processes import store
from tests.harness.small_disk import needs_mount, small_disk
from tests.helm.pods import POLL_SECONDS, READY_SECONDS_MAX, Pod, PodSet
from tests.manifest.kubelet import Kubelet
from tests.manifest.writers import RedisPyWriter

SMALL = ("--set", "shutdown.waitSeconds=1,settings.wal_segment_bytes=1mb,settings.snapshot_every_bytes=0")


def wait_for(pod: Pod, condition: Callable[[str], bool], what: str) -> None:
    """Wait until a condition holds for the log of a pod."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not condition(text := pod.log_path.read_text()):
        assert time.monotonic() < deadline, f"{pod.name}: {what}\n{text[-4000:]}"
        time.sleep(POLL_SECONDS)


@needs_mount
@pytest.mark.timeout(600)
def test_a_pod_whose_volume_is_full_says_so_and_comes_back_when_there_is_room(tmp_path: Path) -> None:
    with (
        PodSet(tmp_path, *SMALL) as pods,
        small_disk(tmp_path / "keys-redan-1", 16 * 1024 * 1024) as volume,
        Kubelet(pods) as kubelet,
    ):
        pods.scale(3)
        kubelet.wait_until_founded()
        full = pods.pods[1]
        writer = RedisPyWriter(kubelet)
        writer.start()
        writer.wait_for(50)
        filler = volume / "filler"
        # The node writes meanwhile: the room may be gone before all of it is taken.
        with suppress(OSError), filler.open("wb") as file:
            room = shutil.disk_usage(volume).free
            file.write(bytes(room))
        client = pods.pods[0].client()
        large = {f"large:{number}": bytes([number]) * 100_000 for number in range(40)}
        for key, value in large.items():
            store(client, key, value)
        wait_for(full, lambda text: "No space left on device" in text, "its disk is not full")
        wait_for(full, lambda text: f'"exit_code": {EXIT_STORAGE}' in text, "it does not end")
        writer.wait_for(100)
        assert not kubelet.is_ready(full)
        filler.unlink()
        kubelet.wait_until_ready(full)
        writer.wait_for(50)
        writer.stop()
        for pod in pods.pods:
            asked = pod.client()
            assert asked.mget(list(large)) == list(large.values()), pod.name
            assert asked.mget(list(writer.acknowledged)) == list(writer.acknowledged.values()), pod.name
        assert set(kubelet.restarts) == {full.name}
        assert kubelet.lost == []
        for pod in pods.pods:
            pod.kill()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
@pytest.mark.timeout(600)
def test_pods_talk_tls_with_certificates_of_the_secret_that_is_named(tmp_path: Path) -> None:
    options = ("--set", "peerTls.existingSecret=redan-peers,shutdown.waitSeconds=1")  # and the secret, as by default
    with PodSet(tmp_path, *options) as pods, Kubelet(pods) as kubelet:
        made = certificate(tmp_path / "made", "pods", authority(tmp_path / "made", "ours"), host=f"DNS:*.{pods.domain}")
        for source, name in ((made.certificate, "tls.crt"), (made.key, "tls.key"), (made.authority, "ca.crt")):
            shutil.copyfile(source, tmp_path / "secrets-peer-tls" / name)
        pods.scale(3)
        kubelet.wait_until_founded()
        store(pods.pods[0].client(), "k", "v")
        assert pods.pods[1].client().get("k") == b"v"


@pytest.mark.timeout(600)
def test_a_pod_with_another_cluster_secret_is_refused_by_name_and_comes_back_with_the_right_one(tmp_path: Path) -> None:
    with PodSet(tmp_path, "--set", "shutdown.waitSeconds=1") as pods, Kubelet(pods) as kubelet:
        pods.scale(3)
        kubelet.wait_until_founded()
        store(pods.pods[0].client(), "k", "v")
        secret = tmp_path / "secrets-cluster" / "secret"
        right = secret.read_text()
        strayed = pods.pods[2]
        assert strayed.delete() == 0
        secret.write_text("another secret of sixteen characters or more")
        strayed.start()
        wait_for(strayed, lambda text: "cluster secret does not match" in text, "it is let in")
        for pod in pods.pods[:2]:
            wait_for(pod, lambda text: '"peer_refused"' in text, "it does not say so")
            line = next(line for line in pod.log_path.read_text().splitlines() if '"peer_refused"' in line)
            assert f'"peer": "{strayed.name}"' in line
            assert '"text": "cluster secret does not match"' in line
        store(pods.pods[1].client(), "meanwhile", "yes")
        assert not kubelet.is_ready(strayed)
        assert strayed.delete() == 0
        secret.write_text(right)
        strayed.start()
        kubelet.wait_until_ready()
        assert strayed.client().mget("k", "meanwhile") == [b"v", b"yes"]
        texts = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert right not in texts
        assert kubelet.restarts == []
