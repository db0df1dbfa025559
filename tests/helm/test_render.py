"""Every file of ci/ renders with both Helms, to what Kubernetes, its Prometheus operator, checkov and promtool take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.charts import (
    CHART,
    CI_FILES,
    HELMS,
    KUBERNETES,
    NAMESPACE,
    OPERATOR_API,
    RELEASE,
    ROOT,
    all_ci_manifests,
    ci_options,
    manifests,
    program,
    ran,
    rendered,
    tool,
)

BASELINE = Path(__file__).parent / "checkov_baseline.json"


@pytest.mark.parametrize("helm", HELMS)
def test_lint_has_nothing_to_say_of_any_ci_file(helm: str) -> None:
    for name in CI_FILES:
        code, text = ran(tool(helm), "lint", "--strict", str(CHART), *ci_options(name))
        assert code == 0, text
        assert "[WARNING]" not in text
        assert "[ERROR]" not in text


@pytest.mark.parametrize("name", CI_FILES)
@pytest.mark.parametrize("helm", HELMS)
def test_a_second_render_is_the_same(helm: str, name: str) -> None:
    again = ran(tool(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *ci_options(name))
    assert again == (0, rendered(helm, *ci_options(name)))


@pytest.mark.parametrize("name", CI_FILES)
def test_both_helms_render_the_same(name: str) -> None:
    assert manifests(*ci_options(name), helm="helm3") == manifests(*ci_options(name), helm="helm4")


@pytest.mark.timeout(300)
def test_every_object_fits_the_strict_schemas_of_kubernetes() -> None:
    native = [manifest for manifest in all_ci_manifests() if manifest["apiVersion"] != OPERATOR_API]
    script = str(ROOT / ".ci" / "chart-tools" / "validate_manifests.py")
    code, text = ran(tool("venv/bin/python"), script, *KUBERNETES, given=json.dumps(native))
    assert code == 0, text
    assert f"{len(native) * len(KUBERNETES)} validated, 0 errors" in text


def test_the_schemas_of_kubernetes_find_a_misspelt_field() -> None:
    script = str(ROOT / ".ci" / "chart-tools" / "validate_manifests.py")
    wrong = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"publishNotReadyAdresses": True}}
    ]
    code, text = ran(tool("venv/bin/python"), script, KUBERNETES[0], given=json.dumps(wrong))
    assert code == 1
    assert "publishNotReadyAdresses" in text


def test_the_objects_for_prometheus_fit_its_operator() -> None:
    tool("node_modules")
    watched = [manifest for manifest in all_ci_manifests() if manifest["apiVersion"] == OPERATOR_API]
    assert {manifest["kind"] for manifest in watched} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert ran(program("node"), tool("validate_objects.js"), given=json.dumps(watched)) == (0, "")


def test_the_schemas_of_the_operator_find_a_wrong_type() -> None:
    tool("node_modules")
    wrong = [{"apiVersion": OPERATOR_API, "kind": "PodMonitor", "metadata": {"name": "x"}, "spec": {"selector": 1}}]
    code, text = ran(program("node"), tool("validate_objects.js"), given=json.dumps(wrong))
    assert code == 1
    assert "selector must be object" in text


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    promtool = program("promtool")
    for manifest in all_ci_manifests():
        if manifest["kind"] == "PrometheusRule":
            (tmp_path / "rules.yaml").write_text(yaml.safe_dump(manifest["spec"]))
    alerts = len(yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"])
    code, text = ran(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert code == 0, text
    assert f"{alerts} rules found" in text


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    promtool = program("promtool")
    (tmp_path / "rules.yaml").write_text((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    stories = (Path(__file__).parent / "alerts.yaml").read_text(encoding="utf-8")
    (tmp_path / "stories.yaml").write_text(stories)
    code, text = ran(promtool, "test", "rules", "stories.yaml", folder=tmp_path)
    assert code == 0, text
    (tmp_path / "stories.yaml").write_text(
        stories.replace('pod="b"}\', values: "1x4 0x20"', 'pod="b"}\', values: "1x24"')
    )
    code, text = ran(promtool, "test", "rules", "stories.yaml", folder=tmp_path)
    assert code == 1, "a story that is not true has to fail"
    assert "RedanNoLeader" in text


@pytest.mark.timeout(300)
def test_checkov_finds_nothing_but_what_was_decided(tmp_path: Path) -> None:
    checkov = tool("venv/bin/checkov")
    for name in CI_FILES:
        (tmp_path / name).write_text(rendered("helm4", *ci_options(name)))
    options = ("--framework", "kubernetes", "--skip-download", "--compact", "--quiet", "--output", "json")
    # Started by its interpreter: the script's first line names the place where it was installed.
    code, text = ran(tool("venv/bin/python"), checkov, "--directory", str(tmp_path), *options, "--soft-fail")
    assert code == 0, text
    report = json.loads(text[text.index("{") :])
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 500
    decided = {row["check"]: set(row["kinds"]) for row in json.loads(BASELINE.read_text())}
    found: dict[str, set[str]] = {}
    for failed in report["results"]["failed_checks"]:
        found.setdefault(failed["check_id"], set()).add(failed["resource"].partition(".")[0])
    assert found == decided


def every_switch(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield an option for each word of an enum and both ways of a switch."""
    for name, inner in schema.get("properties", {}).items():
        if name == "settings":  # what a node takes is its own matter; see test_values.py
            continue
        if inner.get("type") == "boolean":
            yield from (f"{path}{name}={way}" for way in ("true", "false"))
        for word in inner.get("enum", ()):
            yield f"{path}{name}={word}"
        yield from every_switch(inner, f"{path}{name}.")


@pytest.mark.timeout(300)
def test_every_switch_alone_renders_to_what_kubernetes_takes() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    switches = list(every_switch(schema))
    assert len(switches) > 30
    seen = {
        json.dumps(manifest, sort_keys=True): manifest
        for switch in switches
        for manifest in manifests("--set", switch)
        if manifest["apiVersion"] != OPERATOR_API
    }
    script = str(ROOT / ".ci" / "chart-tools" / "validate_manifests.py")
    code, text = ran(tool("venv/bin/python"), script, KUBERNETES[0], KUBERNETES[-1], given=json.dumps([*seen.values()]))
    assert code == 0, text
