"""The services of compose.yaml as containers: what Docker Compose makes of the file.

compose.yaml is read by the library of Docker Compose itself. Each service has a network namespace of its own, and all
know each other's names, as on the network that Docker Compose makes.

Guarantees: variables, mounts, user and rights are those of the file; what a service sets and is not known here fails.
Leaves to the caller: to skip where nothing reads the file, by ``composed``; the network.
"""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.links import NamespaceLinks
from tests.image.containers import BUILT, Container, Mount, Security, built_image
from tests.image.sources import ROOT

PASSWORD: Final = "correct horse battery staple"
FILES: Final = {"REDAN_REQUIREPASS_FILE": "./password", "REDAN_CLUSTER_SECRET_FILE": "./cluster-secret"}
_READ_SECONDS_MAX: Final = 60
_KNOWN: Final = {
    *(
        "build",
        "cap_drop",
        "command",
        "entrypoint",
        "environment",
        "healthcheck",
        "image",
        "networks",
        "ports",
        "read_only",
    ),
    *("restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes"),
}


def read(**variables: str) -> tuple[int, str]:
    """Return exit code and output of Docker Compose's library on compose.yaml; skips the test where it is not."""
    program = BUILT / "compose-config"
    if not program.exists():
        pytest.skip("build/image/compose-config is not there; `make image` builds it where Go is")
    ended = subprocess.run(
        [program, "compose.yaml"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "COMPOSE_DISABLE_ENV_FILE": "1", **variables},
        timeout=_READ_SECONDS_MAX,
        check=False,
    )
    return ended.returncode, ended.stdout


@functools.cache
def composed() -> Mapping[str, Any]:
    """Return compose.yaml as Docker Compose sees it."""
    code, text = read(**FILES)
    assert code == 0, text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def nodes() -> dict[str, Mapping[str, Any]]:
    """Return the services that are nodes, by name."""
    return {name: service for name, service in composed()["services"].items() if service["image"] == "redan"}


def seconds(duration: str) -> float:
    """Return a duration as Go writes it, in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def new_volume(path: Path, like: str) -> Path:
    """Return a volume; a new one belongs to whom the directory of the image belongs that it covers."""
    if not path.exists():
        path.mkdir(parents=True)
        covered = (built_image().rootfs / like.lstrip("/")).stat()
        os.chown(path, covered.st_uid, covered.st_gid)
        path.chmod(stat.S_IMODE(covered.st_mode))
    return path


class ComposedNode:
    """One node of compose.yaml; its volume outlives its containers."""

    def __init__(self, folder: Path, name: str, links: NamespaceLinks, **settings: str) -> None:
        """Know a service; `settings` are variables beside those of the file."""
        self.name = name
        self.address = links.address(name)
        self._namespace = links.namespace(name)
        self._folder = folder
        self._service = nodes()[name]
        self._settings = settings
        assert set(self._service) <= _KNOWN, self._service
        self.grace_seconds = seconds(self._service["stop_grace_period"])
        self._containers = 0

    def container(self) -> Container:
        """Return a new container of the service, with the volume of the one before."""
        self._containers += 1
        service = self._service
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert (service["command"], service["entrypoint"]) == (None, None)
        user, group = map(int, service["user"].split(":"))
        return Container(
            self._folder / self.name / f"container-{self._containers}",
            self._namespace,
            Security(user, group, has_read_only_root=service["read_only"]),
            built_image().command,
            {**built_image().environment, **service["environment"], **self._settings},
            [Mount(self._folder / "hosts", "/etc/hosts"), *self._volumes(), *self._secrets()],
        )

    def is_healthy(self, container: Container) -> bool:
        """Do what Docker does for the health check of the service."""
        kind, *command = self._service["healthcheck"]["test"]
        assert kind == "CMD"
        return container.execute(*command).returncode == 0

    def _volumes(self) -> list[Mount]:
        mounts = []
        for volume in self._service["volumes"]:
            assert volume["type"] == "volume"
            source = new_volume(self._folder / self.name / volume["source"], volume["target"])
            mounts.append(Mount(source, volume["target"]))
        for place in self._service["tmpfs"]:
            target, _, options = place.partition(":")
            source = self._folder / self.name / "tmpfs"
            source.mkdir(exist_ok=True)
            source.chmod(int(dict(option.split("=") for option in options.split(","))["mode"], 8))
            mounts.append(Mount(source, target))
        return mounts

    def _secrets(self) -> list[Mount]:
        mounts = []
        for secret in self._service["secrets"]:
            source = self._folder / secret["source"]
            source.write_text(PASSWORD)
            mounts.append(Mount(source, secret["target"], read_only=True))
        return mounts
