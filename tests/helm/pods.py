"""Pods of the chart's StatefulSet as real processes, each on a loopback address of its own.

A pod gets exactly the command, arguments, variables and files of the manifest. Only the places differ: its directories
lie in a folder of the test, 0.0.0.0 is its own address, and the names of the headless service stand in a hosts file
that its mount namespace has in place of /etc/hosts. Probes ask the path and the port of the manifest.

Guarantees: leaving the context leaves no process behind; every wait has a bound and shows the log.
Leaves to the caller: what a controller would do: which pods there are, and when one is deleted.
"""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest
import redis

from tests.helm.charts import RELEASE, ROOT, Manifest, one

READY_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.05
PROBE_SECONDS: Final = 1.0
"""What the kubelet waits for an answer where the manifest does not say."""
PODS_MAX: Final = 7
PASSWORD: Final = "correct horse"
CLUSTER_SECRET: Final = "correct horse battery staple"
_ENTER: Final = 'mount --bind "$0" /etc/hosts && exec "$@"'


def _path() -> str:
    """Return a PATH on which python and redan are those of the tests, as they are those of the image in a pod."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@functools.cache
def _mount_namespace() -> tuple[str, ...]:
    """Return what gives a program a mount namespace: that of root, or one in which it is root; () if neither may be."""
    for options in (("--mount",), ("--map-root-user", "--mount")):
        command = ("unshare", *options)
        probe = [*command, "sh", "-c", _ENTER, "/etc/hosts", "true"]
        if shutil.which("unshare") and subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return command
    return ()


def with_names(folder: Path) -> tuple[str, ...]:
    """Return what comes before a command that has to know the names of pods."""
    return (*_mount_namespace(), "sh", "-c", _ENTER, str(folder / "hosts"))


class Pod:
    """One pod; its volume outlives its processes."""

    def __init__(self, stateful_set: Manifest, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.volume = folder / name
        self._folder = folder
        pod_spec = stateful_set["spec"]["template"]["spec"]
        (self._container,) = pod_spec["containers"]
        self._grace_seconds = float(pod_spec["terminationGracePeriodSeconds"])
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self.is_wanted = False
        """False from the moment in which the pod is deleted: then its container is not started again."""
        self.starts = 0
        """How often its container was started."""
        self.log_path = folder / f"{name}.log"

    def _placed(self, text: str) -> str:
        """Return a text of the manifest with this pod's places."""
        text = text.replace("/etc/redan", str(self._folder / "etc")).replace("0.0.0.0", self.address)
        text = text.replace("/run/secrets/redan", str(self._folder / "secrets")).replace("$(REDAN_NAME)", self.name)
        return str(self.volume) if text == "/data" else text

    def start(self) -> None:
        """Start the container, with an empty volume if there is none."""
        with self._starting:
            self._start()
            self.is_wanted = True

    def start_again(self) -> bool:
        """Start the container if it has ended and the pod was not deleted; True if so."""
        with self._starting:
            is_over = self.is_wanted and not self.is_running
            if is_over:
                self._start()
            return is_over

    def _start(self) -> None:
        self.starts += 1
        self.volume.mkdir(exist_ok=True)
        environment = {"PATH": _path(), "REDAN_LOG_FORMAT": "json"}
        for variable in self._container["env"]:
            is_name = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "metadata.name"
            environment[variable["name"]] = self.name if is_name else self._placed(variable["value"])
        command = [self._placed(word) for word in (*self._container["command"], *self._container["args"])]
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [*with_names(self._folder), *command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )

    @property
    def is_running(self) -> bool:
        """Whether its container runs."""
        return self._process is not None and self._process.poll() is None

    def manifest_probe(self, kind: str) -> Manifest:
        """Return a probe as the manifest has it."""
        described: Manifest = self._container[f"{kind}Probe"]
        return described

    def probe(self, kind: str) -> bool:
        """Do what the kubelet does for a probe of the manifest; True where it succeeds."""
        asked = self._container[f"{kind}Probe"]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self._container["ports"]}
        timeout = self._container[f"{kind}Probe"].get("timeoutSeconds", PROBE_SECONDS)
        connection = http.client.HTTPConnection(self.address, ports[asked["port"]], timeout=timeout)
        try:
            connection.request("GET", asked["path"])
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        """Wait until the readiness probe succeeds; a container that ends is started again, as the kubelet does."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.probe("readiness"):
                return
            assert self._process is not None
            if self._process.poll() is not None:
                self.start()
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"{self.name} is not ready after {READY_SECONDS_MAX:.0f} s:\n{self.log_path.read_text()}")

    def client(self) -> redis.Redis:
        """Return a client of this pod's RESP port."""
        return redis.Redis(host=self.address, port=6379, password=PASSWORD, socket_timeout=30)

    def delete(self) -> int:
        """Do what the kubelet does with a pod that is deleted, and return the exit code; the volume stays.

        Raises subprocess.TimeoutExpired where the kubelet would kill.
        """
        assert self._process is not None
        with self._starting:
            self.is_wanted = False
        deadline = time.monotonic() + self._grace_seconds
        before = self._container["lifecycle"]["preStop"]["exec"]["command"]
        subprocess.run(before, env={"PATH": _path()}, timeout=self._grace_seconds, check=True)
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(deadline - time.monotonic())

    def kill(self) -> None:
        """End the container at once; harmless if it has ended."""
        process = self._process  # whoever watches may start another one at once
        if process is not None:
            process.kill()
            process.wait(READY_SECONDS_MAX)

    def lose_volume(self) -> None:
        """Remove the volume of a pod that does not run."""
        assert self._process is not None
        assert self._process.poll() is not None
        shutil.rmtree(self.volume)


class PodSet:
    """The pods of one release. Skips the test where no hosts file can be put in place of the system's."""

    def __init__(self, folder: Path, *options: str) -> None:
        if not _mount_namespace():
            pytest.skip("names of pods need a mount namespace, and this user may have none")
        self._folder = folder
        self._stateful_set = one("StatefulSet", *options)
        self._config_maps = [one("ConfigMap", *options, ends=end)["data"] for end in ("-settings", "-replicas")]
        self.domain = f"{self._stateful_set['spec']['serviceName']}.shop.svc.cluster.local"
        self.pods: list[Pod] = []
        # So that two tests at one time have addresses of their own.
        self._network = f"127.{80 + os.getpid() % 100}.{time.monotonic_ns() // 1_000_000 % 250}"

    def __enter__(self) -> PodSet:
        for place in ("etc", "secrets", "secrets-cluster", "secrets-peer-tls"):
            (self._folder / place).mkdir()
        for files in self._config_maps:
            for file_name, text in files.items():
                (self._folder / "etc" / file_name).write_text(text)
        (self._folder / "secrets" / "password").write_text(PASSWORD)
        (self._folder / "secrets-cluster" / "secret").write_text(CLUSTER_SECRET)
        names = [f"{RELEASE}-redan-{ordinal}" for ordinal in range(PODS_MAX)]
        lines = [f"{self._network}.{ordinal + 1} {name}.{self.domain}" for ordinal, name in enumerate(names)]
        (self._folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in self.pods:
            pod.kill()

    def scale(self, replicas: int) -> None:
        """Do what Kubernetes does with another replicaCount: the ConfigMap first, then new pods, all at once."""
        (self._folder / "etc" / "replicas").write_text(str(replicas))
        for ordinal in range(len(self.pods), replicas):
            address = f"{self._network}.{ordinal + 1}"
            self.pods.append(Pod(self._stateful_set, f"{RELEASE}-redan-{ordinal}", address, self._folder))
            self.pods[-1].start()

    def wait_until_ready(self) -> None:
        """Wait until every pod is ready."""
        for pod in self.pods:
            pod.wait_until_ready()

    @property
    def folder(self) -> Path:
        """Where everything of the pods lies."""
        return self._folder

    @property
    def min_ready_seconds(self) -> float:
        """How long a pod has to be ready before an update goes on to the next one."""
        return float(self._stateful_set["spec"]["minReadySeconds"])

    def name_of(self, pod: Pod) -> str:
        """Return the name by which others reach a pod."""
        return f"{pod.name}.{self.domain}"

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the names of the pods are known, and the password is a file."""
        words = [word.replace("/run/secrets/redan", str(self._folder / "secrets")) for word in command]
        return subprocess.run(
            [*with_names(self._folder), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={"PATH": _path()},
            timeout=READY_SECONDS_MAX,
            check=False,
        )


def ctl(pods: PodSet, *arguments: str) -> Any:
    """Ask the first pod with `redan ctl`, as README and NOTES say; return what it prints. Fails with its complaint."""
    where = ("--endpoint", f"{pods.pods[0].address}:7400", "--password-file", "/run/secrets/redan/password")
    ended = pods.execute("redan", "ctl", *arguments, *where)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
