"""What the kubelet and the client service do with pods of tests/helm/pods, in one thread.

States of a pod: started → its startup probe succeeds → its readiness probe says whether the service sends clients
there. A pod that is deleted gets no clients from that moment on.

Guarantees: probes come as often as the manifest says, fail as often as it says before they count, and a container that
    ended is started again; so is one whose liveness probe has failed too often.
Leaves to the caller: deleting pods and creating them anew, which is the StatefulSet's.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

from tests.helm.pods import READY_SECONDS_MAX, Pod, PodSet

TURN_SECONDS: Final = 0.1
PAUSE_SECONDS: Final = 2.0
"""Between two starts of a container that ends at once; the kubelet waits longer and longer, from 10 s on."""


class _Watched:
    """What is known of one pod since its container was last started."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.has_started = False
        self.is_ready = False
        self.failures = {"readiness": 0, "liveness": 0}
        self.probed_at: dict[str, float] = {}

    def is_due(self, kind: str, period: float) -> bool:
        """Tell whether a probe is to be made now, and count it as made."""
        now = time.monotonic()
        if now - self.probed_at.get(kind, 0.0) < period:
            return False
        self.probed_at[kind] = now
        return True


class Kubelet(threading.Thread):
    """Watches the pods of a release; use it as a context manager."""

    def __init__(self, pods: PodSet) -> None:
        super().__init__(daemon=True)
        self._pods = pods
        self._watched: dict[str, _Watched] = {}
        self._stopping = threading.Event()
        self._restarted_at: dict[str, float] = {}
        self.restarts: list[str] = []
        """Names of pods whose container was started again, in order."""
        self.lost: list[str] = []
        """Names of those whose liveness probe was the reason."""

    def run(self) -> None:
        """Look after the pods until told to stop."""
        while not self._stopping.wait(TURN_SECONDS):
            for pod in list(self._pods.pods):
                self._look_after(pod)

    def _look_after(self, pod: Pod) -> None:
        if not pod.is_wanted:
            self._watched.pop(pod.name, None)
            return
        watched = self._watched.get(pod.name)
        if watched is None or watched.start != pod.starts:
            watched = self._watched[pod.name] = _Watched(pod.starts)
        if not pod.is_running:
            self._start_again(pod)
            return
        if not watched.has_started:
            # More often than the manifest says, so that tests are quick: a startup probe only lets the others begin.
            watched.has_started = pod.probe("startup")
            return
        for kind in ("readiness", "liveness"):
            described = pod.manifest_probe(kind)
            # A pod that is not ready is asked every second, as the kubelet does when its state has changed.
            is_waiting = kind == "readiness" and not watched.is_ready
            if not watched.is_due(kind, TURN_SECONDS if is_waiting else described["periodSeconds"]):
                continue
            succeeded = pod.probe(kind)
            watched.failures[kind] = 0 if succeeded else watched.failures[kind] + 1
            if kind == "readiness":
                has_failed = watched.failures[kind] >= described["failureThreshold"]
                watched.is_ready = succeeded or (watched.is_ready and not has_failed)
            elif watched.failures[kind] >= described["failureThreshold"]:
                self.lost.append(pod.name)
                pod.kill()

    def _start_again(self, pod: Pod) -> None:
        now = time.monotonic()
        if now - self._restarted_at.get(pod.name, -PAUSE_SECONDS) >= PAUSE_SECONDS and pod.start_again():
            self._restarted_at[pod.name] = now
            self.restarts.append(pod.name)

    def is_ready(self, pod: Pod) -> bool:
        """Tell whether clients are sent to a pod."""
        watched = self._watched.get(pod.name)
        # What was found out before the container was started anew does not count.
        return watched is not None and watched.start == pod.starts and watched.is_ready and pod.is_wanted

    def wait_until_founded(self) -> None:
        """Wait until all pods are ready for the first time; one that guessed wrong meanwhile and ended is forgotten."""
        self.wait_until_ready()
        self.restarts.clear()

    def endpoints(self) -> list[Pod]:
        """Return the pods behind the client service."""
        return [pod for pod in self._pods.pods if self.is_ready(pod)]

    def wait_until_ready(self, *pods: Pod) -> None:
        """Wait until pods are ready, all of them if none is named."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        for pod in pods or self._pods.pods:
            while not self.is_ready(pod):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{pod.name} is not ready:\n{pod.log_path.read_text()[-4000:]}")
                time.sleep(TURN_SECONDS)

    def __enter__(self) -> Kubelet:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self.join(READY_SECONDS_MAX)
