"""Rendered objects of Kubernetes run by `podman play kube`: a cluster of one node, in miniature.

podman knows pods. What a cluster's controllers and kubelet would do before it comes to pods is done
here, mechanically, and nothing else is changed:

- a Deployment or StatefulSet becomes as many pods as it has replicas; a Service becomes a name of
  the pods that it selects (podman has no StatefulSets, and plays Deployments with one pod),
- init containers run to their end one after the other, each in a pod of its own (podman 4.3 starts
  one again while it removes it),
- volumes are made as the kubelet makes them: a Secret's with its items, mode and fsGroup, an
  emptyDir for one pod alone (podman shares those of the same name), a claim for each replica,
- variables from Secrets become values (podman reads a Secret as variables or as files, not both),
- probes are asked by the test (podman would ask with curl inside, which the image has not),
- ports are left out (podman would publish each on this machine, once).
"""

from __future__ import annotations

import base64
import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.chart import Rendered, Workload, selects
from tests.support.podman import Container, Podman
from tests.support.running import eventually

__all__ = ["DROPPED", "Cluster", "Pod"]

#: Of a container's spec, what podman has no use for, or takes otherwise than Kubernetes does.
DROPPED = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports")
_INIT_S = 120.0


@dataclass(frozen=True)
class Pod:
    """A pod that was started.

    Attributes:
        name: of the pod, as podman knows it.
        workload: whose it is.
        main: its container.
    """

    name: str
    workload: Workload
    main: Container

    def ready(self) -> bool:
        """Ask its readiness probe once, as the kubelet does."""
        probe = self.workload.main.spec["readinessProbe"]
        if command := probe.get("exec", {}).get("command"):
            return self.main.execute(*command, check=False).returncode == 0
        ports = {p["name"]: p["containerPort"] for p in self.workload.main.spec["ports"]}
        get = probe["httpGet"]
        return self.main.answers(ports.get(get["port"], get["port"]), get["path"])


class Cluster:
    """Plays a rendered chart on one network.

    Args:
        podman: runs the pods.
        rendered: the chart.
        secrets: bytes by key by name of a Secret; those of the chart are added.
        scratch: for the files that podman reads.
    """

    def __init__(
        self,
        podman: Podman,
        rendered: Rendered,
        secrets: Mapping[str, Mapping[str, bytes]],
        scratch: Path,
    ) -> None:
        self.podman = podman
        self.rendered = rendered
        self.network = podman.network()
        #: By component, oldest first.
        self.pods: dict[str, list[Pod]] = {}
        self._scratch = scratch
        self._secrets = {name: dict(data) for name, data in secrets.items()}
        for secret in rendered.of("Secret"):
            data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
            self._secrets[secret["metadata"]["name"]] = data

    def secret(self, name: str, key: str) -> bytes:
        """Give what a Secret holds under a key."""
        return self._secrets[name][key]

    def scale(self, component: str, replicas: int) -> list[Pod]:
        """Start pods of a component until there are so many; gives all of them."""
        pods = self.pods.setdefault(component, [])
        workload = self.rendered.workload(component)
        while len(pods) < replicas:
            pods.append(self._start(workload, len(pods)))
        return pods

    def replace(self, pod: Pod) -> Pod:
        """Remove a pod and start another in its place, as a StatefulSet does."""
        pods = self.pods[pod.workload.component]
        number = pods.index(pod)
        self.podman.run("pod", "rm", "--force", "--time=0", pod.name)
        pods[number] = self._start(pod.workload, number)
        return pods[number]

    def await_ready(self, pods: Sequence[Pod]) -> None:
        """Wait until the readiness probe of each says yes."""
        for pod in pods:
            try:
                eventually(pod.ready, f"{pod.name} is ready", 60)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{pod.main.logs()}") from None

    def run_pod(self, name: str) -> Container:
        """Run a bare pod of the chart, such as that of `helm test`; gives it when it has ended."""
        (workload,) = [w for w in self.rendered.workloads if w.name == f"Pod {name}"]
        return self._to_the_end(workload.pod, workload, name)

    def _start(self, workload: Workload, number: int) -> Pod:
        name = f"{workload.object['metadata']['name']}-{number}"
        spec = copy.deepcopy(workload.pod)
        for init in spec.pop("initContainers", []):
            self._to_the_end({**spec, "containers": [init]}, workload, f"{name}-{init['name']}")
        claims = {
            claim["metadata"]["name"]: f"{name}-{claim['metadata']['name']}"
            for claim in workload.object["spec"].get("volumeClaimTemplates", [])
        }
        return self._play(spec, workload, name, claims)

    def _to_the_end(self, spec: dict[str, Any], workload: Workload, name: str) -> Container:
        once = {**copy.deepcopy(spec), "restartPolicy": "Never"}
        container = self._play(once, workload, f"{name}-{uuid4().hex[:4]}", {}).main
        code = container.wait(_INIT_S)
        assert code == 0, f"{name} ended with {code}:\n{container.logs()}"
        return container

    def _play(
        self, spec: dict[str, Any], workload: Workload, name: str, claims: dict[str, str]
    ) -> Pod:
        name = f"{self.podman.prefix}-{name}"
        group = spec["securityContext"]["fsGroup"]
        spec["volumes"] = [
            self._volume(volume, name, group) for volume in spec.get("volumes", [])
        ] + [self._claim(claim, own, group) for claim, own in claims.items()]
        for container in spec["containers"]:
            for key in DROPPED:
                container.pop(key, None)
            container["env"] = [self._variable(entry) for entry in container.get("env", [])]
        metadata = {"name": name, "labels": workload.labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        file = self._scratch / f"{name}.json"
        file.write_text(json.dumps(pod, indent=2))
        aliases = [
            f"alias={service['metadata']['name']}"
            for service in self.rendered.of("Service")
            if selects({"matchLabels": service["spec"]["selector"]}, workload.labels)
        ]
        network = ":".join([self.network, ",".join(aliases)] if aliases else [self.network])
        self.podman.run("play", "kube", f"--network={network}", str(file))
        return Pod(
            name, workload, Container(self.podman, f"{name}-{spec['containers'][0]['name']}")
        )

    def _variable(self, entry: dict[str, Any]) -> dict[str, str]:
        if "valueFrom" not in entry:
            return entry
        source = entry["valueFrom"]["secretKeyRef"]
        return {
            "name": entry["name"],
            "value": self._secrets[source["name"]][source["key"]].decode(),
        }

    def _volume(self, volume: dict[str, Any], pod: str, group: int) -> dict[str, Any]:
        """Make a volume for one pod; gives what stands for it in the pod."""
        path = self._scratch / pod / f"{volume['name']}-{uuid4().hex[:4]}"
        _give(path, group)
        if secret := volume.get("secret"):
            data = self._secrets[secret["secretName"]]
            items = secret.get("items") or [{"key": key, "path": key} for key in data]
            for item in items:
                file = path / item["path"]
                file.parent.mkdir(mode=0o755, exist_ok=True)
                file.write_bytes(data[item["key"]])
                os.chown(file, 0, group)
                file.chmod(secret["defaultMode"])
            # As the kubelet leaves them: anybody may write, were the mount not read-only.
            for directory in (path, *(found for found in path.rglob("*") if found.is_dir())):
                os.chown(directory, 0, group)
                directory.chmod(0o3777)
        else:
            assert "emptyDir" in volume, f"no such volume here: {volume}"
        return _of_host(volume["name"], path)

    def _claim(self, volume: str, name: str, group: int) -> dict[str, Any]:
        """Make a claim's volume unless a pod of that number had it before."""
        path = self._scratch / "claims" / name
        if not path.exists():
            _give(path, group)
        return _of_host(volume, path)


def _give(path: Path, group: int) -> None:
    """Make a directory that a group may write."""
    path.mkdir(parents=True)
    os.chown(path, 0, group)
    path.chmod(0o2777)


def _of_host(volume: str, path: Path) -> dict[str, Any]:
    # Not podman's own volumes: those it gives to whom the image's directory belongs.
    return {"name": volume, "hostPath": {"path": str(path), "type": "Directory"}}
