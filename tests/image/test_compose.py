"""compose.yaml is a file that Docker Compose takes, and its three nodes and its Prometheus work."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kvservice.config import Config
from tests.harness.links import NamespaceLinks, has_namespaces, inside
from tests.helm.charts import program
from tests.image.composed import FILES, PASSWORD, ComposedNode, composed, nodes, read
from tests.image.containers import WAIT_SECONDS_MAX, Container, built_image, redis_cli, wait_until
from tests.image.sources import ROOT

# Starts of containers on a machine that does much else.
pytestmark = pytest.mark.timeout(600)
SCRAPES: Final = ROOT / "compose" / "prometheus.yml"
ADMIN_PORT: Final = 7402
POLL_SECONDS: Final = 0.1


@pytest.fixture
def links() -> Iterator[NamespaceLinks]:
    built_image()
    if not has_namespaces():
        pytest.skip("containers on a network of their own need network namespaces")
    with NamespaceLinks([*nodes(), "client"]) as made:
        yield made


def write_hosts(folder: Path, links: NamespaceLinks) -> Path:
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{links.address(name)} {name}\n" for name in nodes()))
    return hosts


def mounted_in_prometheus(folder: Path) -> Path:
    """Put what Prometheus finds in its container into one folder, and return its settings there."""
    for volume in composed()["services"]["prometheus"]["volumes"]:
        target = Path(volume["target"])
        if volume["type"] == "bind":
            assert target.parent == Path("/etc/prometheus")
            (folder / target.name).write_bytes(Path(volume["source"]).read_bytes())
    return folder / "prometheus.yml"


@pytest.mark.parametrize("variable", FILES)
def test_docker_compose_refuses_to_start_without_its_secrets(variable: str) -> None:
    code, text = read(**{name: path for name, path in FILES.items() if name != variable})
    assert code == 1
    assert f"required variable {variable} is missing a value: name a file" in text


def test_the_nodes_differ_only_in_name_ports_and_volume() -> None:
    assert len(nodes()) == 3
    volumes, ports, rest = set(), [], set()
    for name, service in nodes().items():
        left: dict[str, Any] = {**service, "environment": dict(service["environment"])}
        assert left["environment"].pop("REDAN_NAME") == name
        (volume,) = left.pop("volumes")
        assert volume["target"] == "/data"
        volumes.add(volume["source"])
        ports += left.pop("ports")
        rest.add(json.dumps(left, sort_keys=True))
    assert len(volumes) == 3
    assert len(rest) == 1
    assert len({port["published"] for port in ports}) == len(ports)
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert {port["target"] for port in ports} == {6379, 7400}


def test_the_settings_of_the_nodes_are_lawful_and_name_each_other() -> None:
    for service in nodes().values():
        told = {
            name.removeprefix("REDAN_").lower(): value
            for name, value in service["environment"].items()
            if name not in FILES
        }
        assert [member.name for member in Config.model_validate(told).initial_cluster] == list(nodes())


def test_every_service_has_no_more_rights_than_it_needs() -> None:
    for service in composed()["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_stop_has_more_time_than_the_nodes_may_take() -> None:
    for service in nodes().values():
        grace = service["stop_grace_period"]
        told = service["environment"].get("REDAN_SHUTDOWN_TIMEOUT_SECONDS", Config().shutdown_timeout_seconds)
        assert re.fullmatch(r"\d+m0s", grace)
        assert 60 * int(grace.removesuffix("m0s")) >= 45 + int(told)


def test_prometheus_scrapes_every_node_and_finds_its_alerts(tmp_path: Path) -> None:
    settings = mounted_in_prometheus(tmp_path)
    ended = subprocess.run(
        [program("promtool"), "check", "config", settings], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"SUCCESS: [1-9]\d* rules found", ended.stdout), ended.stdout
    (job,) = yaml.safe_load(SCRAPES.read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{name}:{ADMIN_PORT}" for name in nodes()]


def fetched(namespace: str, host: str, port: int, path: str) -> str:
    """Return what is answered over HTTP in a network namespace, nothing while nobody answers."""
    with inside(namespace):
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()


def asked(namespace: str, path: str) -> Any:
    """Return what Prometheus answers in a network namespace, None while it does not."""
    try:
        return json.loads(fetched(namespace, "127.0.0.1", 9090, path))["data"]
    except ValueError:
        return None


def leads(namespace: str, address: str) -> bool:
    return "\nredan_raft_is_leader 1.0\n" in fetched(namespace, address, ADMIN_PORT, "/metrics")


def test_three_composed_nodes_are_a_cluster_that_outlives_its_leader(tmp_path: Path, links: NamespaceLinks) -> None:
    write_hosts(tmp_path, links)
    # Patient, so that no election on a slow machine comes between finding the leader and stopping it.
    found = {name: ComposedNode(tmp_path, name, links, REDAN_ELECTION_TIMEOUT_MS="5000") for name in nodes()}
    client = links.namespace("client")

    def ask(name: str, *words: str) -> str:
        return redis_cli(client, found[name].address, *words, password=PASSWORD)

    def is_set(name: str) -> bool:
        return ask(name, "SET", "k", "v2") == "OK"

    with ExitStack() as stack:
        running: dict[str, Container] = {name: stack.enter_context(node.container()) for name, node in found.items()}
        for name, container in running.items():
            wait_until(container, partial(found[name].is_healthy, container))
        first, *others = found
        assert ask(first, "SET", "k", "v1") == "OK"
        assert [ask(name, "GET", "k") for name in others] == ["v1", "v1"]
        ctl_status = ("redan", "ctl", "status", "--password-file", "/run/secrets/password")
        wait_until(running[first], lambda: running[first].execute(*ctl_status).returncode == 0)
        (leader,) = [name for name in found if leads(client, found[name].address)]
        assert running[leader].stop("TERM", found[leader].grace_seconds) == 0
        assert "leadership_handed_over" in running[leader].events()
        survivors = [name for name in found if name != leader]
        for name in survivors:
            wait_until(running[name], partial(is_set, name))
        back = stack.enter_context(found[leader].container())
        wait_until(back, lambda: found[leader].is_healthy(back))
        assert ask(leader, "GET", "k") == "v2"


def test_prometheus_sees_the_composed_nodes(tmp_path: Path, links: NamespaceLinks) -> None:
    hosts = write_hosts(tmp_path, links)
    settings = mounted_in_prometheus(tmp_path)
    settings.write_text(settings.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s"))
    client = links.namespace("client")
    enter = 'mount --bind "$0" /etc/hosts && exec "$@"'
    options = [f"--config.file={settings}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with ExitStack() as stack:
        for name in nodes():
            stack.enter_context(ComposedNode(tmp_path, name, links).container())
        with inside(client), (tmp_path / "prometheus.log").open("wb") as log:
            prometheus = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", enter, hosts, program("prometheus"), *options],
                stdout=log,
                stderr=log,
            )
        stack.callback(prometheus.wait, WAIT_SECONDS_MAX)
        stack.callback(prometheus.kill)
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            answer = asked(client, "/api/v1/query?query=sum(redan_raft_has_leader)")
            if answer and answer["result"] and answer["result"][0]["value"][1] == "3":
                break
            assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
            time.sleep(POLL_SECONDS)
        targets = asked(client, "/api/v1/targets")["activeTargets"]
        assert {target["labels"]["instance"] for target in targets} == {f"{name}:{ADMIN_PORT}" for name in nodes()}
        groups = asked(client, "/api/v1/rules")["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} >= {"RedanNoLeader", "RedanQuorumAtRisk"}
