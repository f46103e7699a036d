"""The keys Job as it is rendered, run for real, and its Secrets mounted as the pods mount them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from telemq.keys import KeyDirectory, load_link_keys
from tests.support.chart import Rendered, Values, Workload, at, render
from tests.support.commands import telemq
from tests.support.kubeapi import KubeApi, kube_api


def _run_job(rendered: Rendered, cluster: KubeApi) -> None:
    """Run the Job's container with its words and variables, as in a pod."""
    main = rendered.workload("keys").main
    got = telemq(
        *main.spec["args"],
        f"--account={cluster.access.account}",
        **main.variables,
        KUBERNETES_SERVICE_HOST=cluster.access.host,
        KUBERNETES_SERVICE_PORT=cluster.access.port,
    )
    assert 0 == got.returncode, got.stderr


def _mount(workload: Workload, cluster: KubeApi, root: Path) -> None:
    """Lay out under `root` what the pod's Secret volumes would be."""
    paths = {m["name"]: m["mountPath"] for m in workload.main.spec["volumeMounts"]}
    for volume in workload.pod["volumes"]:
        secret: dict[str, Any] = volume.get("secret") or {}
        if secret.get("secretName") in cluster.secrets:
            items = {item["key"]: item["path"] for item in secret["items"]}
            assert items.keys() <= cluster.data(secret["secretName"]).keys()
            cluster.mount(secret["secretName"], root / paths[volume["name"]].lstrip("/"), items)


@pytest.mark.parametrize("values", [{}, at("fullnameOverride", "other")], ids=["default", "other"])
def test_pods_read_what_the_job_made(tmp_path: Path, values: Values) -> None:
    """`helm install`: the Job, the mounts and the variables were written by different hands."""
    rendered = render(values)
    with kube_api(tmp_path) as cluster:
        _run_job(rendered, cluster)
        for component in ("broker", "streamer", "collector"):
            _mount(rendered.workload(component), cluster, tmp_path / component)

    def path(component: str, variable: str) -> Path:
        given = rendered.workload(component).main.variables[variable]
        return tmp_path / component / str(given).lstrip("/")

    directory = KeyDirectory(path("broker", "TELEMQ_BROKER_KEYS"))
    own = directory.own_pair()
    allowed, wrong = directory.entries()
    assert [] == wrong
    keys = {key.name: key for key in allowed}
    for component, role in (("streamer", "producer"), ("collector", "consumer")):
        prefix = f"TELEMQ_{component.upper()}"
        found = load_link_keys(
            str(path(component, f"{prefix}_KEY")), str(path(component, f"{prefix}_BROKER_KEY"))
        )
        assert found is not None
        assert own.public == found.broker
        assert (role, found.own.public) == (keys[component].role, keys[component].public)
    mounted = {file.name for file in (tmp_path / "broker").rglob("*.key*")}
    assert not mounted & {"streamer.key_secret", "collector.key_secret"}


def test_job_may_do_what_it_does_and_nothing_else(tmp_path: Path) -> None:
    """A rule that is missing fails the install; one too many is a hole."""
    rendered = render()
    with kube_api(tmp_path) as cluster:
        _run_job(rendered, cluster)
        done = set(cluster.calls)
    (role,) = rendered.of("Role")
    allowed = {
        (verb, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", ["any"])
    }
    gets = {("get", name) for method, name in done if method == "GET"}
    assert {("create", "any"), *gets} == allowed
    (binding,) = rendered.of("RoleBinding")
    (subject,) = binding["subjects"]
    assert subject["name"] == rendered.workload("keys").pod["serviceAccountName"]
