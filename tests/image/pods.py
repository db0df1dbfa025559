"""A pod of the chart, a node or a task, as a container: what the kubelet makes of the manifest.

Guarantees: command, arguments, variables, mounts and security context are those of the manifest; what is set there and
    is not known here fails, so that nothing of it is left out.
Leaves to the caller: names and addresses, as a hosts file; when the pod starts and is deleted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.helm.charts import Manifest, manifests, one
from tests.image.containers import Container, Mount, Security, built_image

PASSWORD: Final = "correct horse battery staple"
_MEBIBYTE: Final = 1 << 20
_GRACE_SECONDS: Final = 30
_KNOWN_TO_POD: Final = {
    *("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "seccompProfile"),
}
_KNOWN_TO_CONTAINER: Final = {
    *("allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsNonRoot", "capabilities"),
}


def security_of(pod_spec: Mapping[str, Any]) -> Security:
    """Return what the security contexts of a pod and of its container come to."""
    pod, container = pod_spec["securityContext"], pod_spec["containers"][0]["securityContext"]
    assert set(pod) <= _KNOWN_TO_POD, pod
    assert set(container) <= _KNOWN_TO_CONTAINER, container
    assert pod["runAsNonRoot"] is container["runAsNonRoot"] is True
    assert pod["runAsUser"] != 0
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["privileged"] is False
    memory = pod_spec["containers"][0]["resources"]["limits"]["memory"]
    mebibytes = re.fullmatch(r"(\d+)([MG])i", memory)
    assert mebibytes is not None, memory
    return Security(
        user=pod["runAsUser"],
        group=pod["runAsGroup"],
        groups=(pod["fsGroup"],),
        has_read_only_root=container["readOnlyRootFilesystem"],
        has_no_new_privileges=not container["allowPrivilegeEscalation"],
        has_seccomp=pod["seccompProfile"] == {"type": "RuntimeDefault"},
        memory_bytes_max=int(mebibytes[1]) * _MEBIBYTE * (1024 if mebibytes[2] == "G" else 1),
    )


class Pod:
    """One pod; its volumes outlive its containers."""

    def __init__(self, kind: str, folder: Path, name: str, namespace: str, hosts: Path, *options: str) -> None:
        """Know the only object of a kind (StatefulSet, Pod) in what the chart renders with these options."""
        self._options = options
        spec = one(kind, *options)["spec"]
        self._spec: Manifest = spec["template"]["spec"] if "template" in spec else spec
        (self._container_spec,) = self._spec["containers"]
        self.security = security_of(self._spec)
        self.name = name
        self._folder = folder
        self._namespace = namespace
        self._hosts = hosts
        self._containers = 0
        self.grace_seconds = float(self._spec.get("terminationGracePeriodSeconds", _GRACE_SECONDS))

    def container(self) -> Container:
        """Return a new container of the pod, with the volumes of the one before."""
        self._containers += 1
        environment = built_image().environment
        for variable in self._container_spec.get("env", ()):
            value = self.name if "valueFrom" in variable else variable["value"]
            environment[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], value)
        return Container(
            self._folder / f"container-{self._containers}",
            self._namespace,
            self.security,
            [*self._container_spec["command"], *self._container_spec["args"]],
            environment,
            [
                Mount(self._hosts, "/etc/hosts"),
                *(
                    Mount(self._volume(mount["name"]), mount["mountPath"], mount.get("readOnly", False))
                    for mount in self._container_spec["volumeMounts"]
                ),
            ],
        )

    def probe(self, kind: str) -> tuple[int, str]:
        """Return the port and the path that a probe of the manifest asks."""
        asked = self._container_spec[f"{kind}Probe"]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self._container_spec["ports"]}
        return ports[asked["port"]], asked["path"]

    def _volume(self, name: str) -> Path:
        """Return the directory of a volume, made at its first use."""
        path = self._folder / "volumes" / name
        if path.exists():
            return path
        path.mkdir(parents=True)
        volume = {found["name"]: found for found in self._spec["volumes"]}.get(name)
        if volume is not None and "emptyDir" not in volume:
            sources = volume["projected"]["sources"] if "projected" in volume else [volume]
            for source in sources:
                self._fill(path, source)
        # What the kubelet does for fsGroup: the group gets the volume, and what will be made in it.
        for found in (path, *path.rglob("*")):
            os.chown(found, 0, self.security.groups[0])
        path.chmod(0o2770)
        return path

    def _fill(self, path: Path, source: Mapping[str, Any]) -> None:
        """Write the files of a config map or of a secret."""
        if "configMap" in source:
            name = source["configMap"]["name"]
            for found in manifests(*self._options):
                if found["kind"] == "ConfigMap" and found["metadata"]["name"] == name:
                    for file_name, text in found["data"].items():
                        (path / file_name).write_text(text)
            return
        # No manifest has the texts of secrets.
        for item in source["secret"]["items"]:
            (path / item["path"]).write_text(PASSWORD)
            (path / item["path"]).chmod(source["secret"].get("defaultMode", 0o644))
