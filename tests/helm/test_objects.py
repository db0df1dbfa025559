"""What the chart asks of Kubernetes, each a rule that others have paid for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.helm.charts import CHART, CI_FILES, Manifest, all_ci_manifests, ci_options, manifests, one, rendered

DOMAIN = "keys-redan-peers.shop.svc.cluster.local"


def pod_spec_of(manifest: Manifest) -> dict[str, Any] | None:
    """Return the specification of the pods of an object; None if it has none."""
    match manifest["kind"]:
        case "Pod":
            spec = manifest["spec"]
        case "StatefulSet" | "Job":
            spec = manifest["spec"]["template"]["spec"]
        case "CronJob":
            spec = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case _:
            return None
    assert isinstance(spec, dict)
    return spec


def node(*options: str) -> dict[str, Any]:
    """Return the container of a node."""
    (container,) = one("StatefulSet", *options)["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_scaling_replaces_no_pod() -> None:
    three, five = (one("StatefulSet", "--set", f"replicaCount={count}") for count in (3, 5))
    assert (three["spec"]["replicas"], five["spec"]["replicas"]) == (3, 5)
    assert three["spec"]["template"] == five["spec"]["template"]
    assert three["spec"]["volumeClaimTemplates"] == five["spec"]["volumeClaimTemplates"]
    assert one("ConfigMap", "--set", "replicaCount=5", ends="-replicas")["data"] == {"replicas": "5"}
    settings = [one("ConfigMap", "--set", f"replicaCount={count}", ends="-settings") for count in (3, 5)]
    assert settings[0] == settings[1]


def test_other_settings_do_replace_the_pods() -> None:
    annotations = [
        one("StatefulSet", "--set", f"settings.maxmemory={size}")["spec"]["template"]["metadata"]["annotations"]
        for size in ("1gb", "2gb")
    ]
    assert annotations[0] != annotations[1]


@pytest.mark.parametrize(("replicas", "away"), [(3, 1), (5, 2), (7, 3)])
def test_evictions_leave_a_majority(replicas: int, away: int) -> None:
    budget = one("PodDisruptionBudget", "--set", f"replicaCount={replicas}")
    assert budget["spec"]["maxUnavailable"] == away
    assert replicas - away > replicas / 2
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_single_node_may_be_evicted() -> None:
    assert [found["kind"] for found in manifests("--set", "replicaCount=1") if "Budget" in found["kind"]] == []


def test_pods_start_together_and_are_found_before_they_are_ready() -> None:
    spec = one("StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["minReadySeconds"] == 10
    peers = one("Service", ends="-peers")
    assert peers["metadata"]["name"] == spec["serviceName"]
    assert peers["spec"]["clusterIP"] == "None"
    assert peers["spec"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in one("Service", ends="keys-redan")["spec"]


def test_services_lead_to_the_nodes_and_to_nobody_else() -> None:
    for name in CI_FILES:
        labels = one("StatefulSet", *ci_options(name))["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests(*ci_options(name)):
            if manifest["kind"] == "Service":
                assert manifest["spec"]["selector"].items() <= labels.items()
                others = [found for found in manifests(*ci_options(name)) if found["kind"] in ("Pod", "Job")]
                for other in others:
                    theirs = other.get("metadata", {})["labels"]
                    assert not manifest["spec"]["selector"].items() <= theirs.items()


def test_ports_have_names_that_say_their_protocol() -> None:
    ports = {port["name"]: port["containerPort"] for port in node()["ports"]}
    assert ports == {"resp": 6379, "grpc-client": 7400, "grpc-peer": 7401, "http-admin": 7402}
    clients = {port["name"]: port for port in one("Service", ends="keys-redan")["spec"]["ports"]}
    assert set(clients) == {"resp", "grpc-client"}
    assert clients["grpc-client"]["appProtocol"] == "kubernetes.io/h2c"


def test_nodes_are_known_by_names_and_not_by_addresses() -> None:
    environment = {variable["name"]: variable for variable in node()["env"]}
    assert environment["REDAN_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    for plane, port in (("RESP", 6379), ("GRPC", 7400), ("PEER", 7401)):
        assert environment[f"REDAN_ADVERTISE_{plane}_ADDR"]["value"] == f"$(REDAN_NAME).{DOMAIN}:{port}"
    # $(REDAN_NAME) is filled in only from variables that stand before.
    names = [variable["name"] for variable in node()["env"]]
    assert names.index("REDAN_NAME") == 0


def test_probes_ask_the_admin_port_what_they_mean() -> None:
    container = node()
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    paths = {name: (probe["httpGet"]["path"], probe["httpGet"]["port"]) for name, probe in probes.items()}
    assert paths == {
        "startup": ("/startupz", "http-admin"),
        "liveness": ("/livez", "http-admin"),
        "readiness": ("/readyz", "http-admin"),
    }
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 3600


def test_the_grace_period_is_the_sum_of_what_a_stop_may_take() -> None:
    options = ("--set", "shutdown.waitSeconds=7,shutdown.drainSeconds=20,shutdown.snapshotSeconds=100")
    spec = one("StatefulSet", *options)["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 127
    container = node(*options)
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-c", "import time; time.sleep(7)"]
    assert {"name": "REDAN_SHUTDOWN_TIMEOUT_SECONDS", "value": "20"} in container["env"]


def test_every_pod_is_restricted() -> None:
    seen = set()
    for manifest in all_ci_manifests():
        if (spec := pod_spec_of(manifest)) is None:
            continue
        seen.add(manifest["kind"])
        pod = spec["securityContext"]
        assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (True, 10001, 10001, 10001)
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        (container,) = spec["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        may_call = manifest["metadata"]["name"].endswith("-secrets")
        assert spec["automountServiceAccountToken"] is may_call
        assert set(container.get("command", ["python"])[:1]) <= {"python", "redan"}, "an image need not have a shell"
    assert seen == {"Pod", "Job", "CronJob", "StatefulSet"}


def test_nothing_but_data_and_tmp_can_be_written() -> None:
    writable = {mount["mountPath"] for mount in node()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/data", "/tmp"}


def test_volumes_outlive_the_release_and_not_the_scaling() -> None:
    spec = one("StatefulSet")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Delete"}
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    alone = one("StatefulSet", *ci_options("one-node-values.yaml"))["spec"]
    assert "volumeClaimTemplates" not in alone
    assert {volume["name"]: volume for volume in alone["template"]["spec"]["volumes"]}["data"]["emptyDir"]


@pytest.mark.parametrize(
    ("how", "wanted"), [("soft", ["ScheduleAnyway"] * 2), ("hard", ["DoNotSchedule"] * 2), ("none", [])]
)
def test_nodes_are_spread_over_machines_and_zones(how: str, wanted: list[str]) -> None:
    spec = one("StatefulSet", "--set", f"spread.machines={how},spread.zones={how}")["spec"]["template"]["spec"]
    spread = spec.get("topologySpreadConstraints", [])
    assert [constraint["whenUnsatisfiable"] for constraint in spread] == wanted
    keys = {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} if wanted else set()
    assert {constraint["topologyKey"] for constraint in spread} == keys


def test_only_nodes_of_the_release_reach_the_port_between_nodes() -> None:
    policy = one("NetworkPolicy")["spec"]
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    rules = [rule for rule in policy["ingress"] if {"port": "grpc-peer"} in rule["ports"]]
    assert [rule["from"] for rule in rules] == [[{"podSelector": policy["podSelector"]}]]
    # They ask each other for the members before they start, whoever else may be a client.
    assert {"port": "grpc-client"} in rules[0]["ports"]
    assert all(rule["ports"] for rule in policy["ingress"]), "a rule without ports would open all of them"


def test_clients_and_scrapers_can_be_named() -> None:
    policy = one("NetworkPolicy", *ci_options("five-nodes-over-zones-values.yaml"))["spec"]
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert by_port["resp"][1:] == [{"namespaceSelector": {"matchLabels": {"team": "web"}}}]
    monitoring = {"kubernetes.io/metadata.name": "monitoring"}
    assert by_port["http-admin"] == [{"namespaceSelector": {"matchLabels": monitoring}}]


def test_a_secret_of_the_operator_is_used_and_none_is_made() -> None:
    options = ci_options("five-nodes-over-zones-values.yaml")
    kinds = {manifest["kind"] for manifest in manifests(*options)}
    assert not kinds & {"Job", "Role", "RoleBinding", "Secret"}
    volumes = {volume["name"]: volume for volume in one("StatefulSet", *options)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["password"]["secret"]["secretName"] == "redan-login"
    assert volumes["password"]["secret"]["items"] == [{"key": "redan-password", "path": "password"}]
    assert volumes["cluster-secret"]["secret"]["secretName"] == "redan-login"
    assert volumes["cluster-secret"]["secret"]["items"] == [{"key": "redan-nodes", "path": "secret"}]
    assert volumes["peer-tls"]["secret"]["secretName"] == "redan-peers"


def test_no_render_holds_a_secret_or_any_chance() -> None:
    for name in CI_FILES:
        assert "Secret" not in {manifest["kind"] for manifest in manifests(*ci_options(name))}
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    for function in ("rand", "genPrivateKey", "genSelfSignedCert", "uuidv4", "lookup", "now", "IsInstall", "IsUpgrade"):
        assert f"{function} " not in templates.replace(f"is {function} ", ""), function
    assert "Release.Revision" not in templates


def test_the_job_that_makes_the_secrets_may_create_secrets_and_nothing_else() -> None:
    role = one("Role")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]
    weights = {
        kind: int(one(kind, ends="-secrets")["metadata"]["annotations"]["helm.sh/hook-weight"])
        for kind in ("ServiceAccount", "Role", "RoleBinding", "Job")
    }
    assert weights["ServiceAccount"] <= weights["RoleBinding"] < weights["Job"]
    assert weights["Role"] < weights["RoleBinding"]


def test_the_number_of_nodes_changes_no_object_but_those_that_count() -> None:
    def by_name(count: int) -> dict[str, Manifest]:
        options = (*ci_options("monitoring-values.yaml"), "--set", f"replicaCount={count}")
        return {f"{found['kind']}/{found['metadata']['name']}": found for found in manifests(*options)}

    three, five = by_name(3), by_name(5)
    changed = {name for name in three if three[name] != five[name]}
    assert changed == {
        "StatefulSet/keys-redan",
        "ConfigMap/keys-redan-replicas",
        "PodDisruptionBudget/keys-redan",
        "CronJob/keys-redan-snap",
    }


def test_names_in_lists_that_helm_4_merges_are_unique() -> None:
    for manifest in all_ci_manifests():
        if (spec := pod_spec_of(manifest)) is None:
            continue
        for container in spec["containers"]:
            for entries, key in (("env", "name"), ("ports", "containerPort"), ("volumeMounts", "mountPath")):
                values = [entry[key] for entry in container.get(entries, [])]
                assert len(values) == len(set(values))
            names = [port["name"] for port in container.get("ports", [])]
            assert len(names) == len(set(names))
        names = [volume["name"] for volume in spec.get("volumes", [])]
        assert len(names) == len(set(names))


def test_long_names_leave_room_for_what_is_hung_on_them() -> None:
    options = ("--set", f"fullnameOverride={'n' * 60}", *ci_options("monitoring-values.yaml"))
    text = rendered("helm4", *options)
    assert json.dumps(text).count("n" * 45) == 0
    for manifest in manifests(*options):
        bound = 52 if manifest["kind"] in ("StatefulSet", "CronJob") else 63
        assert len(manifest["metadata"]["name"]) <= bound, manifest["metadata"]["name"]


def test_the_dashboard_and_the_rules_are_as_they_stand_in_the_folder() -> None:
    options = ci_options("monitoring-values.yaml")
    dashboard = json.loads(one("ConfigMap", *options, ends="-dashboard")["data"]["redan.json"])
    assert dashboard == json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in panels]
    assert len(places) == len(set(places)), "two panels lie in one place"
    (group,) = one("PrometheusRule", *options)["spec"]["groups"]
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"].startswith("https://docs.example.com/redan/operations#")


def test_every_alert_leads_to_a_chapter_that_is_there() -> None:
    operations = (CHART.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.+)$", operations, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    (group,) = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    assert {rule["annotations"]["runbook"] for rule in group["rules"]} <= anchors


def test_whoever_wants_no_password_is_not_in_protected_mode() -> None:
    def variables(*options: str) -> dict[str, Any]:
        (container,) = one("StatefulSet", *options)["spec"]["template"]["spec"]["containers"]
        return {variable["name"]: variable.get("value") for variable in container["env"]}

    assert variables(*ci_options("one-node-values.yaml"))["REDAN_PROTECTED_MODE"] == "no"
    assert "REDAN_PROTECTED_MODE" not in variables()
    assert "REDAN_REQUIREPASS_FILE" in variables()


def test_nodes_have_what_they_prove_to_each_other_and_nobody_else_has() -> None:
    spec = one("StatefulSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert variables["REDAN_CLUSTER_SECRET_FILE"] == "/run/secrets/redan-cluster/secret"
    assert mounts["/run/secrets/redan-cluster"]["readOnly"] is True
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "cluster-secret"]
    assert volume["secret"]["secretName"] == "keys-redan-cluster"
    assert "REDAN_PEER_TLS_CERT" not in variables
    others = [
        manifest for manifest in manifests("--set", "snapshots.enabled=true") if manifest["kind"] in ("Pod", "CronJob")
    ]
    assert len(others) == 2
    assert "redan-cluster" not in json.dumps(others)


def test_certificates_of_nodes_are_files_of_the_secret_that_is_named() -> None:
    options = ci_options("five-nodes-over-zones-values.yaml")
    (container,) = one("StatefulSet", *options)["spec"]["template"]["spec"]["containers"]
    files = {variable["value"] for variable in container["env"] if "PEER_TLS" in variable["name"]}
    assert files == {f"/run/secrets/redan-peer-tls/{name}" for name in ("tls.crt", "tls.key", "ca.crt")}
    assert "/run/secrets/redan-peer-tls" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_who_wants_no_secret_between_nodes_gets_none() -> None:
    options = ci_options("one-node-values.yaml")
    assert "cluster-secret" not in json.dumps(manifests(*options))
    assert "Job" not in {manifest["kind"] for manifest in manifests(*options)}
    only = manifests("--set", "clusterSecret.enabled=false")
    (job,) = [manifest for manifest in only if manifest["kind"] == "Job"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [argument for argument in arguments if argument.startswith("--secret=")] == [
        "--secret=keys-redan-auth/password"
    ]
