"""Containers of the built image, run by runc, each in a network namespace of its own.

What is Docker's or the kubelet's to do is done here: the image's own settings (user, variables, entry point, stop
signal), what is mounted, and what a security context means in the terms of an OCI runtime.

Guarantees: no process can write to the files of the image; leaving a container leaves no process, no mount and no
    control group behind; every wait has a bound and shows the log.
Leaves to the caller: the network, and folders for what is mounted.
Reference: the OCI runtime specification, config-linux; the Kubernetes documentation of SecurityContext.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import pytest

from tests.harness.links import NAMESPACES, inside
from tests.image.seccomp import runtime_default
from tests.image.sources import ROOT, digest

BUILT: Final = ROOT / "build" / "image"
WAIT_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.05
_KERNEL_MOUNTS: Final = (
    ("/proc", "proc", ()),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)
_MASKED: Final = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware")
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Image(NamedTuple):
    """The built image."""

    rootfs: Path
    config: Mapping[str, Any]
    """What it says of itself, under Docker's names."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a container gets from the image."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    @property
    def command(self) -> list[str]:
        """Words that a container runs unless told otherwise."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]


@functools.cache
def built_image() -> Image:
    """Return the image of these sources; skips the test where there is none, or nothing that could run it."""
    if os.geteuid() != 0 or shutil.which("runc") is None:
        pytest.skip("containers need root and runc")
    sources = BUILT / "sources"
    if not sources.exists():
        pytest.skip("there is no image in build/image; `make image` builds it where root and buildah are")
    if sources.read_text().strip() != digest():
        pytest.skip("the image in build/image is of other sources; `make image` builds it anew")
    if refused := _refusal():
        pytest.skip(f"this machine lets runc start nothing, not even `true`: {refused}")
    return Image(BUILT / "rootfs", json.loads((BUILT / "image.json").read_text())["Docker"]["config"])


def _refusal() -> str:
    """Return what runc says of the plainest container of its own making; nothing if that runs."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["runc", "spec"], cwd=folder, check=True, timeout=WAIT_SECONDS_MAX)
        described = Path(folder) / "config.json"
        config = json.loads(described.read_text())
        config["root"] = {"path": str(BUILT / "rootfs"), "readonly": True}
        config["process"] |= {"terminal": False, "args": ["/bin/true"]}
        described.write_text(json.dumps(config))
        command = ["runc", "--root", f"{folder}/state", "run", f"redan-{os.getpid()}-plain"]
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            timeout=WAIT_SECONDS_MAX,
        )  # fmt: skip
    return ended.stderr.strip() if ended.returncode else ""


@dataclasses.dataclass(frozen=True)
class Mount:
    """A file or directory of this machine in a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Security:
    """What a container may do."""

    user: int
    group: int
    groups: tuple[int, ...] = ()
    has_read_only_root: bool = True
    has_no_new_privileges: bool = True
    capabilities: tuple[str, ...] = ()
    has_seccomp: bool = True
    memory_bytes_max: int | None = None


class Container:
    """One container; what it mounts outlives it. Use it as a context manager."""

    _made = 0

    def __init__(
        self,
        folder: Path,
        namespace: str,
        security: Security,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Sequence[Mount],
        *,
        directory: str = "/data",
    ) -> None:
        Container._made += 1
        self.name = f"redan-{os.getpid()}-{Container._made}"
        self.namespace = namespace
        self.log_path = folder / "container.log"
        self._state = folder / "runc"
        self._bundle = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "hostname": namespace,
            "root": {"path": str(built_image().rootfs), "readonly": security.has_read_only_root},
            "process": {
                "terminal": False,
                "user": {"uid": security.user, "gid": security.group, "additionalGids": list(security.groups)},
                "args": list(command),
                "env": [f"{name}={value}" for name, value in environment.items()],
                "cwd": directory,
                "noNewPrivileges": security.has_no_new_privileges,
                "capabilities": {
                    kind: list(security.capabilities) for kind in ("bounding", "effective", "permitted", "inheritable")
                },
            },
            "mounts": [
                *(
                    {"destination": target, "type": kind, "source": kind, "options": list(options)}
                    for target, kind, options in _KERNEL_MOUNTS
                ),
                *(
                    {
                        "destination": mount.target,
                        "source": str(mount.source),
                        "options": ["rbind", "nosuid", "nodev", "ro" if mount.read_only else "rw"],
                    }
                    for mount in mounts
                ),
            ],
            "linux": {
                "namespaces": [
                    *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                    {"type": "network", "path": str(NAMESPACES / namespace)},
                ],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                "maskedPaths": list(_MASKED),
                "readonlyPaths": list(_READ_ONLY),
            },
        }
        if security.has_seccomp:
            self._config["linux"]["seccomp"] = runtime_default()
        if security.memory_bytes_max is not None:
            self._config["linux"]["resources"]["memory"] = {"limit": security.memory_bytes_max}

    def __enter__(self) -> Container:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _runc(self, *arguments: str) -> list[str]:
        return ["runc", "--root", str(self._state), *arguments]

    def start(self) -> None:
        """Start the container, and wait for nothing."""
        (self._bundle / "config.json").write_text(json.dumps(self._config))
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                self._runc("run", "--bundle", str(self._bundle), self.name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def log(self) -> str:
        """Return what the container has written so far."""
        return self.log_path.read_text(errors="replace")

    def events(self) -> list[str]:
        """Return the names of the events that the node in the container has logged so far."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [str(json.loads(line).get("event")) for line in lines]

    def status(self) -> dict[str, str]:
        """Return what the kernel says of the first process of the container, which runs."""
        stated = subprocess.run(self._runc("state", self.name), capture_output=True, check=True, timeout=60)
        lines = Path(f"/proc/{json.loads(stated.stdout)['pid']}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one more process in the container, as `docker exec` and `kubectl exec` do."""
        return subprocess.run(
            self._runc("exec", self.name, *command), capture_output=True, text=True, timeout=60, check=False
        )

    def is_running(self) -> bool:
        """Tell whether the container has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self, signal_name: str, grace_seconds: float) -> int:
        """Send a signal to the first process, and return the exit code.

        Raises subprocess.TimeoutExpired after the grace period, when Docker and the kubelet would kill.
        """
        assert self._process is not None
        subprocess.run(self._runc("kill", self.name, signal_name), check=True, timeout=60)
        return self._process.wait(grace_seconds)

    def wait(self) -> int:
        """Wait for the end of a container that ends by itself, and return the exit code."""
        assert self._process is not None
        return self._process.wait(WAIT_SECONDS_MAX)

    def remove(self) -> None:
        """End what runs, at once; harmless if it has ended."""
        if self._process is not None and self._process.poll() is None:
            subprocess.run(self._runc("kill", self.name, "KILL"), check=False, capture_output=True, timeout=60)
            try:
                self._process.wait(WAIT_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(WAIT_SECONDS_MAX)
        subprocess.run(self._runc("delete", "--force", self.name), check=False, capture_output=True, timeout=60)


def wait_until(container: Container, holds: Callable[[], bool]) -> None:
    """Wait until something holds; raises with the log when it never does, or the container ends before."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        if not container.is_running():
            raise RuntimeError(f"the container has ended:\n{container.log()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {WAIT_SECONDS_MAX:.0f} s:\n{container.log()}")
        time.sleep(POLL_SECONDS)


def answers(namespace: str, host: str, port: int, path: str) -> bool:
    """Ask over HTTP from a network namespace, as the kubelet does; True for an answer that says yes."""
    with inside(namespace):
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path)
            return 200 <= connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()


def redis_cli(namespace: str, host: str, *words: str, password: str = "") -> str:
    """Return what redis-cli prints for one command that it sends from a network namespace; skips where it is not."""
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("there is no redis-cli on this machine")
    environment = {"PATH": os.environ["PATH"], **({"REDISCLI_AUTH": password} if password else {})}
    with inside(namespace):
        ended = subprocess.run(
            [program, "-h", host, *words], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
    return (ended.stdout + ended.stderr).strip()
