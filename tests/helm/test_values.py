"""What the chart says to values: it refuses what cannot be, by name, and its documents are those of its values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.redan import generate
from kvservice.config_load import load_config
from tests.helm.charts import CHART, CI_FILES, HELMS, NAMESPACE, RELEASE, ci_options, one, ran, tool


def refusal(helm: str, *options: str) -> str:
    """Return what Helm complains about; fails if it renders."""
    code, text = ran(tool(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options)
    assert code != 0, f"{options} are taken"
    return text


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("replicaCount=2", ("replicaCount", "must be one of", "1, 3, 5, 7")),
        ("replicaCount=0", ("replicaCount", "1, 3, 5, 7")),
        ("replicaCount=null", ("replicaCount",)),
        ("replicas=3", ("replicas", "not allowed")),
        ("auth.pasword=x", ("auth", "pasword", "not allowed")),
        ("settings.maxmemorie=1gb", ("settings", "maxmemorie", "not allowed")),
        ("settings.name=n1", ("settings", "name", "not allowed")),
        ("settings.requirepass=secret", ("settings", "requirepass", "not allowed")),
        ("settings.cluster_secret=0123456789abcdef", ("settings", "cluster_secret", "not allowed")),
        ("settings.protected_mode=false", ("settings", "protected_mode", "not allowed")),
        ("clusterSecret.existingsecret=x", ("clusterSecret", "existingsecret", "not allowed")),
        ("clusterSecret.secretKey=a/b", ("secretKey",)),
        ("peerTls.secret=x", ("peerTls", "secret", "not allowed")),
        ("settings.fsync=sometimes", ("fsync", "always")),
        ("settings.databases=0", ("databases", "1")),
        ("persistence.retention.whenScaled=Keep", ("whenScaled", "Retain")),
        ("persistence.size=lots", ("size",)),
        ("spread.zones=off", ("zones",)),
        ("shutdown.snapshotSeconds=1", ("snapshotSeconds", "10")),
        ("image.tag=a b", ("tag",)),
        ("podLabels.app\\.kubernetes\\.io/name=other", ("app.kubernetes.io/name",)),
        ("service.type=ExternalName", ("type", "ClusterIP")),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(helm: str, option: str, words: tuple[str, ...]) -> None:
    text = refusal(helm, "--set", option)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("helm", HELMS)
def test_a_kubernetes_that_is_too_old_is_refused(helm: str) -> None:
    assert "1.29" in refusal(helm, "--kube-version", "1.28.15")
    where = ("--namespace", NAMESPACE, "--kube-version", "1.29.0-eks-1")
    assert ran(tool(helm), "template", RELEASE, str(CHART), *where)[0] == 0


@pytest.mark.parametrize("helm", HELMS)
def test_two_ways_to_scrape_are_one_too_many(helm: str) -> None:
    switches = "monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true"
    assert "would count every node twice" in refusal(helm, "--set", switches)


def test_the_table_and_the_schema_of_settings_are_as_generated() -> None:
    assert {
        path.name for path, text in generate.generated().items() if path.read_text(encoding="utf-8") != text
    } == set()


def test_a_value_without_a_comment_is_found() -> None:
    with pytest.raises(ValueError, match="silent"):
        list(generate.rows_of("# -- said\nspoken: 1\nsilent: 2\n"))
    rows = list(generate.rows_of("# -- one\na:\n  b: 1\nc:\n  # -- two\n  d: [3]\n"))
    assert rows == [("a", "one"), ("c.d", "two")]


def test_every_part_of_the_schema_is_closed_where_the_names_are_the_chart_s() -> None:
    open_by_nature = {"global", "affinity"}

    def open_parts(schema: dict[str, Any], path: str) -> list[str]:
        found = [] if "properties" not in schema or schema.get("additionalProperties") is False else [path]
        for name, inner in schema.get("properties", {}).items():
            found += open_parts(inner, f"{path}.{name}")
        return found

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert open_parts(schema, "values") == []
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*values, "global"}
    bare = {name for name, inner in schema["properties"].items() if inner == {"type": "object"}}
    assert bare <= open_by_nature


@pytest.mark.parametrize("name", CI_FILES)
def test_a_node_takes_the_settings_file_that_the_chart_writes(name: str, tmp_path: Path) -> None:
    settings = one("ConfigMap", *ci_options(name), ends="-settings")["data"]["redan.toml"]
    (tmp_path / "redan.toml").write_text(settings)
    loaded = load_config({}, {"REDAN_CONFIG": str(tmp_path / "redan.toml")})
    wanted = yaml.safe_load((CHART / "ci" / name).read_text()).get("settings") or {"maxmemory": "512mb"}
    assert {field for field, origin in loaded.origins.items() if origin.startswith("file")} == set(wanted)


def test_whole_numbers_reach_the_settings_file_as_they_are(tmp_path: Path) -> None:
    # From a file: there every number is a float to Helm, and those of --set are not.
    values = {"maxclients": 1_000_000, "maxmemory": 4_294_967_296, "grpc_reflection": False}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"settings": values}))
    lines = one("ConfigMap", "--values", str(tmp_path / "values.yaml"), ends="-settings")["data"][
        "redan.toml"
    ].splitlines()
    assert {"maxclients = 1000000", "maxmemory = 4294967296", "grpc_reflection = false"} <= set(lines)


def test_the_notes_say_how_to_reach_it() -> None:
    def notes(*options: str) -> str:
        where = ("--namespace", NAMESPACE, "--dry-run=client")  # Helm 3 wants a cluster also for that
        code, text = ran(tool("helm4"), "install", RELEASE, str(CHART), *where, *options)
        assert code == 0, text
        return text.partition("NOTES:\n")[2]

    text = notes()
    assert [line[0] for line in text.splitlines() if line[1:3] == ". "] == ["1", "2", "3"]
    assert "redan ctl status --password-file /run/secrets/redan/password" in text
    assert "get secret keys-redan-auth -o go-template='{{index .data \"password\" | base64decode}}'" in text
    alone = notes(*ci_options("one-node-values.yaml"))
    assert "There is no password" in alone
    assert "whoever reaches the port between them can join" in alone
    assert "can join" not in text
    assert "can join" not in notes("--set", "clusterSecret.enabled=false,peerTls.existingSecret=pems")
    assert "when the pod goes, the data is gone" in alone
    assert "get secret" not in alone
