"""The rendered StatefulSet as real processes under writes: founded, its leader killed, a pod deleted, all replaced.

Commands, arguments, variables, probes, preStop and grace period are those of the manifest (tests/helm/pods); what the
kubelet and the service do is done by tests/manifest/kubelet.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.helm.charts import ROOT
from tests.helm.pods import Pod, PodSet
from tests.manifest.kubelet import Kubelet
from tests.manifest.programs import programs
from tests.manifest.writers import PIPED, ProgramWriter, RedisCliWriter, RedisPyWriter, Writer

QUICK = ("--set", "minReadySeconds=1,shutdown.waitSeconds=2")
"""What a stop and an update wait only so that clients of a real cluster learn of them."""
WRITES_BETWEEN_STEPS = 20
SECONDS_MAX = 900.0
KEYS_AT_ONCE = 500


class Release:
    """A release that serves, and its writers."""

    def __init__(self, pods: PodSet, kubelet: Kubelet, writers: list[Writer]) -> None:
        self.pods = pods
        self.kubelet = kubelet
        self.writers = writers
        self.lines: list[str] = []
        """What is printed: one line a step."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do something to the pods, wait until everybody writes again, and note how long nobody could."""
        for writer in self.writers:
            writer.wait_for(WRITES_BETWEEN_STEPS)
        begin = time.monotonic()
        yield
        end = time.monotonic()
        for writer in self.writers:
            writer.wait_for(WRITES_BETWEEN_STEPS)
        gaps = [f"{writer.name} {writer.gap_seconds(begin, end):.2f} s" for writer in self.writers]
        self.lines.append(f"{name}, {end - begin:.1f} s; longest time without an acknowledged write: {', '.join(gaps)}")

    def leader(self) -> Pod:
        """Return the pod whose node leads, as soon as one does."""
        leaders: list[Pod] = []

        def look() -> bool:
            where = (
                "--endpoint",
                f"{self.pods.pods[0].address}:7400",
                "--password-file",
                "/run/secrets/redan/password",
            )
            # Its exit code says whether all is well, which it need not be during an election.
            said = self.pods.execute("redan", "ctl", "status", "--output", "json", *where).stdout
            name = json.loads(said)["leader"] if said else ""
            leaders[:] = [pod for pod in self.pods.pods if pod.name == name]
            return bool(leaders)

        wait_for(look)
        return leaders[0]

    def replace(self, pod: Pod) -> None:
        """Delete a pod in order, and start it anew on its volume, as the StatefulSet does."""
        assert pod.delete() == 0, pod.log_path.read_text()[-4000:]
        pod.start()
        self.kubelet.wait_until_ready(pod)


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    commands = programs()
    with PodSet(tmp_path, *QUICK) as pods, Kubelet(pods) as kubelet, ExitStack() as ends:
        begin = time.monotonic()
        pods.scale(3)
        kubelet.wait_until_founded()
        founded = f"founded and ready after {time.monotonic() - begin:.1f} s"
        addresses = [f"{pods.name_of(pod)}:7400" for pod in pods.pods]
        made = Release(pods, kubelet, [])
        made.lines.append(founded)

        def end(writer: Writer) -> None:
            if writer.is_alive():
                writer.stop()

        def start(writer: Writer) -> None:
            ends.callback(end, writer)
            made.writers.append(writer)
            writer.start()

        start(RedisPyWriter(kubelet))
        if shutil.which("redis-cli"):
            start(RedisCliWriter(kubelet))
        for name, (command, place) in commands.items():
            start(ProgramWriter(name, tmp_path, addresses, command, place, SECONDS_MAX))
        yield made


def assert_nothing_is_missing(release: Release) -> None:
    """Check that every node has every acknowledged write, and that no increment was done twice or not at all."""
    for pod in release.pods.pods:
        client = pod.client()
        for writer in release.writers:
            keys = list(writer.acknowledged)
            for start in range(0, len(keys), KEYS_AT_ONCE):
                part = keys[start : start + KEYS_AT_ONCE]
                found = dict(zip(part, client.mget(part), strict=True))
                assert found == {key: writer.acknowledged[key] for key in part}, f"{writer.name} by {pod.name}"
            for counter, answers in writer.counted.items():
                assert answers == sorted(set(answers)), f"{counter} went back, or answered the same twice"
                if not writer.failures:
                    assert answers == list(range(1, len(answers) + 1)), f"{counter} was incremented twice"
                # What failed, and what was under way at the end, may have been done or not.
                most = len(answers) + PIPED * (len(writer.failures) + 1)
                assert len(answers) <= int(client.get(counter) or 0) <= most, f"{counter} by {pod.name}"


@pytest.mark.timeout(900)
def test_no_acknowledged_write_is_missing_after_a_kill_a_deleted_pod_and_an_update(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    kubelet, pods = release.kubelet, release.pods.pods
    with release.step("leader killed, its container started again"):
        leader = release.leader()
        leader.kill()
        wait_for(lambda: leader.name in kubelet.restarts)
        kubelet.wait_until_ready(leader)
    with release.step("pod deleted and created anew"):
        follower = next(pod for pod in pods if pod is not release.leader())
        release.replace(follower)
    with release.step("pod and volume deleted and created anew"):
        follower = next(pod for pod in pods if pod is not release.leader())
        assert follower.delete() == 0
        follower.lose_volume()
        follower.start()
        kubelet.wait_until_ready(follower)
    with release.step("all pods replaced, the last one first"):
        for pod in reversed(pods):
            release.replace(pod)
            time.sleep(release.pods.min_ready_seconds)  # what the StatefulSet waits, too
    for writer in release.writers:
        writer.stop()
    assert kubelet.restarts == [leader.name], f"another container ended by itself: {leader.log_path.read_text()}"
    assert kubelet.lost == []
    assert_nothing_is_missing(release)
    release.lines += [
        f"{writer.name}: {writer.count} writes acknowledged, none missing; {len(writer.failures)} failed"
        for writer in release.writers
    ]
    report = "\n".join(release.lines)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "manifest.txt").write_text(report + "\n")
    with capsys.disabled():  # beside other tests this goes nowhere: make test-manifest prints the file
        print(f"\n{report}")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
