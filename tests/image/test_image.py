"""The image holds what runs and no more, and runs as Docker and the chart start it."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.harness.links import NamespaceLinks, has_namespaces
from tests.helm.charts import NAMESPACE, RELEASE
from tests.image.containers import Container, Mount, Security, answers, built_image, redis_cli, wait_until
from tests.image.pods import PASSWORD, Pod
from tests.image.sources import ROOT

# Starts of containers on a machine that does much else.
pytestmark = pytest.mark.timeout(600)
USER: Final = 10001
POD: Final = f"{RELEASE}-redan-0"
TOOLS_OF_BUILDS: Final = ("cc", "gcc", "g++", "c++", "clang", "make", "ld", "as", "pip", "pip3", "git", "curl", "wget")
DOCKER_STOP_SECONDS: Final = 60.0


@pytest.fixture
def links() -> Iterator[NamespaceLinks]:
    if not has_namespaces():
        pytest.skip("containers on a network of their own need network namespaces")
    with NamespaceLinks(["client", POD]) as made:
        yield made


def of_docker(folder: Path, links: NamespaceLinks, **settings: str) -> Container:
    """Return what `docker run --read-only --cap-drop ALL -e … -v …:/data` starts."""
    volume = folder / "volume"
    if not volume.exists():
        # A new volume is like the directory of the image that it covers.
        volume.mkdir()
        like = (built_image().rootfs / "data").stat()
        os.chown(volume, like.st_uid, like.st_gid)
        volume.chmod(stat.S_IMODE(like.st_mode))
    user, group = map(int, built_image().config["User"].split(":"))
    number = sum(1 for _ in folder.glob("docker-*"))
    return Container(
        folder / f"docker-{number}",
        links.namespace(POD),
        Security(user, group),
        built_image().command,
        {**built_image().environment, **settings},
        [Mount(volume, "/data")],
    )


def version_of_the_project() -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert isinstance(version, str)
    return version


def is_healthy(container: Container) -> bool:
    kind, *command = built_image().config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return container.execute(*command).returncode == 0


def test_the_image_says_how_it_runs() -> None:
    config = built_image().config
    assert config["User"] == f"{USER}:{USER}"
    assert (config["Entrypoint"], config["Cmd"]) == (["redan"], ["serve"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Volumes"] == {"/data": {}}
    assert set(config["ExposedPorts"]) == {f"{port}/tcp" for port in (6379, 7400, 7401, 7402)}


def test_the_labels_of_the_image_are_true() -> None:
    labels = built_image().config["Labels"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["org.opencontainers.image.version"] == version_of_the_project()
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert labels["org.opencontainers.image.description"] == project["description"]
    base = labels["org.opencontainers.image.base.name"].removeprefix("docker.io/library/")
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {base}


def test_the_image_has_no_tools_of_builds_and_nothing_of_this_machine() -> None:
    rootfs = built_image().rootfs
    folders = [rootfs / part.lstrip("/") for part in built_image().environment["PATH"].split(":")]
    assert [name for name in TOOLS_OF_BUILDS if any(os.path.lexists(folder / name) for folder in folders)] == []
    installed = {path.name.partition("-")[0] for path in (rootfs / "opt/redan").rglob("*.dist-info")}
    assert "redan" in installed
    assert installed & {"pip", "setuptools", "wheel", "pytest"} == set()
    left = ["src", "wheels", "opt/build", "etc/pip.conf", "root/.cache", "root/.config"]
    assert [name for name in left if (rootfs / name).exists()] == []


def test_the_node_can_write_to_nothing_of_the_image_but_its_volume() -> None:
    rootfs = built_image().rootfs
    writable = []
    for folder, names, files in os.walk(rootfs):
        for path in (Path(folder, name) for name in (*names, *files)):
            status = path.lstat()
            is_open = bool(status.st_mode & stat.S_IWOTH) and not stat.S_ISLNK(status.st_mode)
            if status.st_uid == USER or status.st_gid == USER or is_open:
                writable.append(str(path.relative_to(rootfs)))
    # Directories for everybody's temporary files are part of every Debian.
    assert sorted(set(writable) - {"tmp", "var/tmp", "run/lock", "var/lock"}) == ["data"]


def test_docker_without_a_password_serves_nobody_from_outside(tmp_path: Path, links: NamespaceLinks) -> None:
    with of_docker(tmp_path, links) as container:
        wait_until(container, lambda: is_healthy(container))
        answer = redis_cli(links.namespace("client"), links.address(POD), "PING")
        assert "DENIED Redis is running in protected mode" in answer


def test_docker_stops_and_starts_and_the_volume_keeps_what_was_acknowledged(
    tmp_path: Path, links: NamespaceLinks
) -> None:
    def ask(*words: str) -> str:
        return redis_cli(links.namespace("client"), links.address(POD), *words, password=PASSWORD)

    acknowledged = 0
    is_over = threading.Event()

    def count() -> None:
        nonlocal acknowledged
        while not is_over.is_set() and ask("INCR", "count").isdecimal():
            acknowledged += 1

    with of_docker(tmp_path, links, REDAN_REQUIREPASS=PASSWORD) as container:
        wait_until(container, lambda: ask("PING") == "PONG")
        counting = threading.Thread(target=count)
        counting.start()
        try:
            wait_until(container, lambda: acknowledged >= 5)
            assert container.stop(built_image().config["StopSignal"], DOCKER_STOP_SECONDS) == 0
        finally:
            is_over.set()
            counting.join()
        stopped = [name for name in container.events() if name in ("drain_started", "log_sealed", "node_stopped")]
        assert stopped == ["drain_started", "log_sealed", "node_stopped"]
    with of_docker(tmp_path, links, REDAN_REQUIREPASS=PASSWORD) as container:
        wait_until(container, lambda: ask("PING") == "PONG")
        # The last one may have been carried out without an answer that arrived.
        assert int(ask("GET", "count")) in (acknowledged, acknowledged + 1)
        assert container.stop("TERM", DOCKER_STOP_SECONDS) == 0


def test_a_setting_that_is_refused_ends_the_container_with_code_2(tmp_path: Path, links: NamespaceLinks) -> None:
    with of_docker(tmp_path, links, REDAN_MAXCLIENTS="many") as container:
        assert container.wait() == 2
        assert "maxclients" in container.log()


def test_the_pod_of_the_chart_runs_under_its_security_context(tmp_path: Path, links: NamespaceLinks) -> None:
    hosts = tmp_path / "hosts"
    domain = f"{RELEASE}-redan-peers.{NAMESPACE}.svc.cluster.local"
    options = ("--set", "replicaCount=1")
    # The service of the chart leads to the only pod that there is.
    hosts.write_text(f"127.0.0.1 localhost\n{links.address(POD)} {POD}.{domain} {POD} {RELEASE}-redan\n")
    pod = Pod("StatefulSet", tmp_path / "pod", POD, links.namespace(POD), hosts, *options)
    client, address = links.namespace("client"), links.address(POD)

    def ask(*words: str, password: str = PASSWORD) -> str:
        return redis_cli(client, address, *words, password=password)

    with pod.container() as container:
        for kind in ("startup", "liveness", "readiness"):
            wait_until(container, partial(answers, client, address, *pod.probe(kind)))
        status = container.status()
        assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert container.execute("redan", "version").stdout.split()[-1] == version_of_the_project()
        refused = container.execute("touch", "/opt/redan/new")
        assert "Read-only file system" in refused.stderr
        assert "NOAUTH" in ask("GET", "k", password="")
        assert ask("SET", "k", "kept") == "OK"
        assert ask("GET", "k") == "kept"
        with Pod("Pod", tmp_path / "test", "test", client, hosts, *options).container() as helm_test:
            assert helm_test.wait() == 0, helm_test.log()
        assert container.stop("TERM", pod.grace_seconds) == 0
    with pod.container() as container:
        wait_until(container, lambda: answers(client, address, *pod.probe("readiness")))
        assert ask("GET", "k") == "kept"
        assert container.stop("TERM", pod.grace_seconds) == 0
