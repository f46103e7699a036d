"""Upgrades and rollbacks: what must stay, stays."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helm_python.config import Config

from tests.support.chart import CHART, NAMESPACE, RELEASE, Rendered, Values, at, load, render
from tests.support.chart_values import COMBINATIONS
from tests.support.kubeapi import KubeApi, kube_api

_TOKEN: Values = at("broker.http.enabled", True)


def _secrets(cluster: KubeApi, values: Values, **options: Any) -> dict[str, dict[str, str]]:
    """Render against a cluster; give the data of every Secret."""
    with Config(kubeconfig_content=cluster.kubeconfig(), namespace=NAMESPACE) as config:
        texts = config.render(load(), values, name=RELEASE, namespace=NAMESPACE, **options)
    return {
        one["metadata"]["name"]: {
            key: base64.b64decode(value).decode() for key, value in one["data"].items()
        }
        for one in Rendered(load().merge_values(values), texts).of("Secret")
    }


def test_passwords_are_made_once_and_kept(tmp_path: Path) -> None:
    """`helm upgrade`, and an install where an uninstall left the Secrets, as it is told to."""
    with kube_api(tmp_path) as cluster:
        first, other = (_secrets(cluster, _TOKEN, is_install=True) for _ in range(2))
        assert {"telemetry-postgres", "telemetry-mq-http"} == set(first)
        for name, key in (("telemetry-postgres", "password"), ("telemetry-mq-http", "token")):
            assert re.fullmatch(r"[A-Za-z0-9]{32,}", first[name][key])
            assert first[name][key] != other[name][key]
        for name, data in first.items():
            cluster.put(name, {key: value.encode() for key, value in data.items()})
        assert first == _secrets(cluster, _TOKEN, is_upgrade=True)
        assert first == _secrets(cluster, _TOKEN, is_install=True)


def test_connection_string_has_the_password_and_leads_to_the_service() -> None:
    """Postgres and its clients are told the same."""
    rendered = render(at("postgres", {"port": 7432, "user": "u", "database": "d"}))
    data = rendered.get("Secret", "telemetry-postgres")["data"]
    password, dsn = (base64.b64decode(data[key]).decode() for key in ("password", "dsn"))
    assert f"postgresql://u:{password}@telemetry-postgres:7432/d" == dsn
    (port,) = rendered.get("Service", "telemetry-postgres")["spec"]["ports"]
    assert 7432 == port["port"]


def test_keys_are_no_part_of_the_release() -> None:
    """A rollback or an uninstall must not take the keys of pods that run."""
    rendered = render()
    names = {one["metadata"]["name"] for one in rendered.of("Secret")}
    assert not names & {"telemetry-mq-keys", "telemetry-streamer-key", "telemetry-collector-key"}


def _next_version(directory: Path, *, app: bool) -> Path:
    """Give a copy of the chart with a newer version; and of the program, if `app`."""
    chart = Path(shutil.copytree(CHART, directory / "telemq"))
    text = (chart / "Chart.yaml").read_text()
    text = re.sub(r"(?m)^version: .*", "version: 9.9.9", text)
    if app:
        text = re.sub(r"(?m)^appVersion: .*", 'appVersion: "9.9.8"', text)
    (chart / "Chart.yaml").write_text(text)
    return chart


#: What Kubernetes does not let an upgrade change.
_FIXED = ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy")


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=list(COMBINATIONS))
def test_next_version_changes_nothing_that_cannot_be_changed(
    tmp_path: Path, values: Values
) -> None:
    """An upgrade that Kubernetes refuses in the middle leaves a pipeline of two halves."""
    old, new = render(values), render(values, _next_version(tmp_path, app=True))
    for before, after in zip(old.workloads, new.workloads, strict=True):
        assert before.name == after.name
        for key in _FIXED:
            old_value = before.object["spec"].get(key)
            assert old_value == after.object["spec"].get(key), f"{before.name}: {key}"
    if not old.values["image"]["digest"]:
        images = {w.main.spec["image"] for w in new.workloads if w.main.is_telemq}
        assert {f"{old.values['image']['repository']}:9.9.8"} == images


@pytest.mark.parametrize("path", ["broker.replicas", "broker.queueBytes", "commonLabels.team"])
def test_change_of_a_value_changes_nothing_that_cannot_be_changed(path: str) -> None:
    """`helm upgrade --reuse-values --set …`."""
    journal = COMBINATIONS["journal"]
    value: Any = "new" if "Labels" in path else 4096
    changed = {**journal, "broker": {**journal["broker"]}}
    top, _, rest = path.partition(".")
    changed[top] = {**changed.get(top, {}), **at(rest, value)}
    for before, after in zip(render(journal).workloads, render(changed).workloads, strict=True):
        for key in _FIXED:
            assert before.object["spec"].get(key) == after.object["spec"].get(key)


def test_next_version_of_the_chart_alone_replaces_no_pod(tmp_path: Path) -> None:
    """The chart got a new option, the program is the same: brokers keep running."""
    old, new = render(), render({}, _next_version(tmp_path, app=False))
    for before, after in zip(old.workloads, new.workloads, strict=True):
        if before.is_service:
            assert before.template == after.template, before.name


def test_old_and_new_run_side_by_side() -> None:
    """A rolling update takes no streamer, collector or gateway away before the next is ready."""
    rendered = render()
    for component in ("streamer", "collector", "api"):
        strategy = rendered.workload(component).object["spec"]["strategy"]
        assert "RollingUpdate" == strategy["type"]
        assert 0 == strategy["rollingUpdate"]["maxUnavailable"]
    assert "RollingUpdate" == rendered.workload("broker").object["spec"]["updateStrategy"]["type"]


def test_volumes_outlive_the_release() -> None:
    """`helm uninstall` by mistake: journals and data are still there."""
    rendered = render(COMBINATIONS["journal"])
    policy = rendered.workload("broker").object["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert {"whenDeleted": "Retain", "whenScaled": "Retain"} == policy
    assert not rendered.of("PersistentVolumeClaim")
