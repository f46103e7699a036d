"""The keys Job against an HTTPS server that answers as the Kubernetes API does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from telemq import log
from telemq.errors import KubernetesError, SettingError, TelemqError
from telemq.keys import KeyDirectory, LinkKeys, load_link_keys
from telemq.kubernetes import ClusterAccess, SecretsApi, api, make_key_secrets
from tests.support.brokers import DEADLINE_S, running_broker, until
from tests.support.commands import telemq
from tests.support.keys import consumer_link, producer_link
from tests.support.kubeapi import NAMES, KubeApi, kube_api

_FLAGS = (
    f"--broker-secret={NAMES.broker}",
    f"--streamer-secret={NAMES.streamer}",
    f"--collector-secret={NAMES.collector}",
)
_ALL = {NAMES.broker, NAMES.streamer, NAMES.collector}
#: What the chart mounts into the broker's pods.
ITEMS = {
    "broker.key": "broker.key",
    "broker.key_secret": "broker.key_secret",
    "streamer.key": "allowed/streamer.key",
    "collector.key": "allowed/collector.key",
}
#: Every call of a run that finds nothing.
_CALLS = 6


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeApi]:
    """An API without any Secret."""
    log.configure("error", "json")
    with kube_api(tmp_path) as cluster:
        yield cluster


def make(cluster: KubeApi, wait_s: float = DEADLINE_S) -> dict[str, bool]:
    """Run what the command runs."""
    return make_key_secrets(SecretsApi(cluster.access, wait_s), NAMES)


def words(cluster: KubeApi) -> list[str]:
    return ["keys", "kubernetes", *_FLAGS, f"--account={cluster.access.account}"]


def variables(cluster: KubeApi) -> dict[str, str]:
    return {
        "KUBERNETES_SERVICE_HOST": cluster.access.host,
        "KUBERNETES_SERVICE_PORT": cluster.access.port,
    }


def peers(cluster: KubeApi, scratch: Path) -> dict[str, LinkKeys]:
    """Load the peers' keys as their pods do."""
    found = {}
    for whose, name in (("streamer", NAMES.streamer), ("collector", NAMES.collector)):
        where = cluster.mount(name, scratch / whose)
        keys = load_link_keys(str(where / f"{whose}.key_secret"), str(where / "broker.key"))
        assert keys is not None
        found[whose] = keys
    return found


def assert_fits(cluster: KubeApi, scratch: Path) -> None:
    """Every pod of the three Secrets gets in, by the code that reads the files."""
    assert set(cluster.secrets) == _ALL
    broker = KeyDirectory(cluster.mount(NAMES.broker, scratch / "broker", ITEMS))
    own = broker.own_pair()
    entries, wrong = broker.entries()
    assert [] == wrong
    allowed = {key.name: key for key in entries}
    assert {"streamer": "producer", "collector": "consumer"} == {
        name: key.role for name, key in allowed.items()
    }
    for whose, keys in peers(cluster, scratch).items():
        assert own.public == keys.broker
        assert allowed[whose].public == keys.own.public


def test_pods_of_the_three_secrets_talk_to_each_other(cluster: KubeApi, tmp_path: Path) -> None:
    """`helm install`: the Job runs first, then everybody mounts what it made."""
    assert dict.fromkeys([NAMES.broker, NAMES.streamer, NAMES.collector], True) == make(cluster)
    assert_fits(cluster, tmp_path / "mounted")
    keys = peers(cluster, tmp_path / "mounted")
    with running_broker(keys=str(tmp_path / "mounted" / "broker")) as broker:
        producer = producer_link(broker.producers, keys["streamer"])
        consumer = consumer_link(broker.consumers, keys["collector"])
        try:
            until(lambda: producer.connected, "the streamer gets in", lambda: producer.poll(0.1))
            until(lambda: consumer.connected, "the collector gets in", lambda: consumer.poll(0.1))
        finally:
            producer.close()
            consumer.close()


def test_secrets_say_whose_they_are_and_a_peer_s_has_no_more_than_it_needs(
    cluster: KubeApi,
) -> None:
    """An operator lists what telemq left behind; a stolen collector key opens nothing else."""
    make(cluster)
    for name in _ALL:
        secret = cluster.secrets[name]
        assert "Opaque" == secret["type"]
        assert "telemq" == secret["metadata"]["labels"]["app.kubernetes.io/part-of"]
        assert "ownerReferences" not in secret["metadata"]
    assert {"streamer.key_secret", "broker.key"} == set(cluster.data(NAMES.streamer))
    assert {"collector.key_secret", "broker.key"} == set(cluster.data(NAMES.collector))
    assert set(ITEMS) < set(cluster.data(NAMES.broker))


def test_second_run_changes_nothing(cluster: KubeApi) -> None:
    """Every `helm upgrade` and every rollback runs the Job again."""
    make(cluster)
    before = dict(cluster.secrets)
    cluster.calls.clear()
    assert dict.fromkeys([NAMES.broker, NAMES.streamer, NAMES.collector], False) == make(cluster)
    assert before == cluster.secrets
    assert {"GET"} == {method for method, _ in cluster.calls}


def test_command_tells_what_it_did_and_no_key(cluster: KubeApi) -> None:
    """The Job's log is read by more people than its Secrets."""
    said = ""
    for verb in ("made", "left"):
        got = telemq(*words(cluster), "--log-level=debug", **variables(cluster))
        assert 0 == got.returncode, got.stderr
        for name in _ALL:
            assert f"{verb}: Secret gpu/{name}" in got.stdout
        said += got.stdout + got.stderr
    keys = set()
    for name in _ALL:
        for content in cluster.data(name).values():
            keys |= set(re.findall(r'-key = "(.{40})"', content.decode()))
    assert 6 == len(keys)
    assert [] == [key for key in keys if key in said]
    assert cluster.token not in said


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, _CALLS + 1))
def test_killed_at_any_call_the_next_run_completes(
    cluster: KubeApi, tmp_path: Path, call: int, done: bool
) -> None:
    """The node dies under the Job: before a call is carried out, or before its answer is there."""
    command = [sys.executable, "-P", "-m", "telemq_cli", *words(cluster)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **variables(cluster)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def kill(number: int, method: str, name: str) -> str | None:
        if number != call:
            return None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
        return "lost" if done else "cut"

    cluster.plan = kill
    assert -signal.SIGKILL == process.wait(DEADLINE_S)
    until(lambda: len(cluster.calls) == call, "the call came")
    # The server may still be carrying it out.
    posts = sum(method == "POST" for method, _ in cluster.calls) - (not done and call > 3)
    until(lambda: posts == len(cluster.secrets), "and is done with")
    before = dict(cluster.secrets)
    make(cluster)
    assert before.items() <= cluster.secrets.items()
    assert_fits(cluster, tmp_path / "mounted")


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "cut", "lost"])
@pytest.mark.parametrize("call", [1, 4, 6])
def test_api_that_fails_once_is_asked_again(
    cluster: KubeApi, tmp_path: Path, call: int, fault: int | str
) -> None:
    """The control plane is upgraded in these seconds; an answer gets lost on its way."""
    cluster.plan = lambda number, method, name: fault if number == call else None
    make(cluster)
    assert_fits(cluster, tmp_path / "mounted")


def test_silent_api_is_asked_again(
    cluster: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet filter drops the first connection."""
    monkeypatch.setattr(api, "_REQUEST_S", 0.3)
    cluster.plan = lambda number, method, name: "hang" if number == 1 else None
    make(cluster)
    assert_fits(cluster, tmp_path / "mounted")


@pytest.mark.parametrize(
    ("fault", "told"),
    [(500, "it answers 500 planned"), ("cut", "Remote end closed"), ("hang", "timed out")],
)
def test_api_that_keeps_failing_is_given_up(
    cluster: KubeApi, monkeypatch: pytest.MonkeyPatch, fault: int | str, told: str
) -> None:
    """The cluster is broken: the Job must fail and say why, for its back-off to count."""
    monkeypatch.setattr(api, "_REQUEST_S", 0.1)
    cluster.plan = lambda number, method, name: fault
    with pytest.raises(KubernetesError, match=f"given up: .*{told}"):
        make(cluster, wait_s=0.5)
    assert 1 < len(cluster.calls) < 20
    assert {} == cluster.secrets


def test_api_that_is_not_there_is_exit_1(cluster: KubeApi) -> None:
    """A NetworkPolicy does not let the Job out."""
    env = {**variables(cluster), "KUBERNETES_SERVICE_PORT": "1", "TELEMQ_KEYS_WAIT_S": "0.3"}
    got = telemq(*words(cluster), **env)
    assert 1 == got.returncode
    assert "telemq: the Kubernetes API at 127.0.0.1 port 1" in got.stderr
    assert "refused" in got.stderr
    assert "Traceback" not in got.stderr


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("POST", 'resources: ["secrets"], verbs: ["create"]}'),
        ("GET", f'resources: ["secrets"], verbs: ["get"], resourceNames: ["{NAMES.streamer}"]}}'),
    ],
)
def test_missing_rule_is_named(cluster: KubeApi, method: str, told: str) -> None:
    """The cluster's administrators made the Role by hand, and one rule is missing."""
    cluster.message = 'User "system:serviceaccount:gpu:telemetry-keys" cannot'
    cluster.plan = lambda number, asked, name: 403 if asked == method else None
    with pytest.raises(KubernetesError) as caught:
        make(cluster)
    assert told in str(caught.value)
    assert cluster.message in str(caught.value)
    assert {} == cluster.secrets


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "the token in .* is not accepted"), (404, "create .*404.*planned"), (422, "422")],
)
def test_other_refusals_are_told_at_once(cluster: KubeApi, status: int, told: str) -> None:
    """The token is revoked; the namespace is being deleted; a policy refuses the object."""
    cluster.plan = lambda number, method, name: (
        status if status == 401 or method == "POST" else None
    )
    with pytest.raises(KubernetesError, match=told):
        make(cluster)
    assert len(cluster.calls) <= 4


def test_keys_in_the_words_of_a_refusal_are_not_told(cluster: KubeApi) -> None:
    """An admission webhook repeats what it was asked to admit."""
    made: list[str] = []
    create = SecretsApi.create

    def spied(self: SecretsApi, name: str, data: dict[str, str]) -> bool:
        made.extend(re.findall(r'-key = ("?.{40}"?)', str(data)))
        cluster.message = f"denied: {data} {'QUJD' * 30}"
        return create(self, name, data)

    cluster.plan = lambda number, method, name: 422 if method == "POST" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecretsApi, "create", spied)
        with pytest.raises(KubernetesError, match="denied") as caught:
            make(cluster)
    assert made
    assert [] == [key for key in made if key.strip('"') in str(caught.value)]
    assert "QUJDQUJD" not in str(caught.value)


def test_server_that_is_not_the_cluster_s_is_not_told_the_token(
    cluster: KubeApi, tmp_path: Path
) -> None:
    """Somebody on the network answers for the API."""
    trustme.CA().cert_pem.write_to_path(str(cluster.access.account / "ca.crt"))
    with pytest.raises(KubernetesError, match="its certificate is not of the authority"):
        make(cluster)
    assert [] == cluster.calls


def test_token_that_is_renewed_meanwhile_is_used(cluster: KubeApi, tmp_path: Path) -> None:
    """The kubelet renews it while the API is not there."""

    def renew(number: int, method: str, name: str) -> int | None:
        if number != 2:
            return None
        cluster.token = "the-next-token"
        (cluster.access.account / "token").write_text(cluster.token)
        return 503

    cluster.plan = renew
    make(cluster)
    assert_fits(cluster, tmp_path / "mounted")


def test_outside_of_a_pod_it_says_so(cluster: KubeApi) -> None:
    """Somebody tries the command on a laptop; a pod has no service account's token."""
    access = cluster.access
    for wrong, told in (
        (ClusterAccess("", "443", access.account), "KUBERNETES_SERVICE_HOST"),
        (ClusterAccess("127.0.0.1", "https", access.account), "KUBERNETES_SERVICE_PORT"),
        (ClusterAccess("127.0.0.1", "443", Path("/nonexistent")), "No such file"),
    ):
        with pytest.raises(SettingError, match=told):
            SecretsApi(wrong, 1)
    for name, content, told in (
        ("ca.crt", "no certificate", "a certificate authority in PEM"),
        ("token", " \n", "not empty"),
        ("token", "\xff", "no text"),
    ):
        (access.account / name).write_text(content, encoding="latin-1")
        with pytest.raises(SettingError, match=told):
            SecretsApi(access, 1)


@pytest.mark.parametrize("gone", [NAMES.broker, NAMES.streamer, NAMES.collector])
def test_secret_that_was_deleted(cluster: KubeApi, tmp_path: Path, gone: str) -> None:
    """One of the three is deleted by mistake: a copy comes back, the set cannot."""
    make(cluster)
    del cluster.secrets[gone]
    before = dict(cluster.secrets)
    if gone == NAMES.broker:
        told = f"hold keys for it.*kubectl delete secret {NAMES.broker} {NAMES.streamer}"
        with pytest.raises(SettingError, match=told):
            make(cluster)
        assert before == cluster.secrets
    else:
        assert make(cluster)[gone]
        assert_fits(cluster, tmp_path / "mounted")


def test_secret_of_another_set_is_refused_and_left(cluster: KubeApi) -> None:
    """A backup of one Secret is restored after keys were made anew."""
    make(cluster)
    old = dict(cluster.secrets)
    cluster.secrets.clear()
    make(cluster)
    for name, told in ((NAMES.streamer, "--streamer-secret"), (NAMES.collector, "--collector")):
        new = cluster.secrets[name]
        cluster.secrets[name] = old[name]
        with pytest.raises(SettingError, match=f"{told}.*allows; restore it, or begin anew"):
            make(cluster)
        assert old[name] == cluster.secrets[name]
        cluster.secrets[name] = new
    cluster.put(NAMES.streamer, {**cluster.data(NAMES.streamer), "broker.key": b""})
    with pytest.raises(SettingError, match=f"broker.key is that of Secret {NAMES.broker}"):
        make(cluster)


@pytest.mark.parametrize("entry", ["broker.key", "broker.key_secret", "streamer.key"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"x" * 10_000])
def test_damaged_set_is_refused(cluster: KubeApi, entry: str, content: bytes) -> None:
    """Somebody edited the Secret by hand."""
    make(cluster)
    cluster.put(NAMES.broker, {**cluster.data(NAMES.broker), entry: content})
    before = dict(cluster.secrets)
    with pytest.raises(SettingError, match=f"--broker-secret.*{entry}"):
        make(cluster)
    assert before == cluster.secrets


def test_what_an_operator_added_or_took_away_is_left(cluster: KubeApi, tmp_path: Path) -> None:
    """A third peer is allowed by hand; the peers' secret keys are taken out of the set."""
    make(cluster)
    changed = {**cluster.data(NAMES.broker), "node-7.key": b"whatever"}
    del changed["streamer.key_secret"], changed["collector.key_secret"]
    cluster.put(NAMES.broker, changed)
    make(cluster)
    assert changed == cluster.data(NAMES.broker)
    assert_fits(cluster, tmp_path / "mounted")
    del cluster.secrets[NAMES.streamer]
    with pytest.raises(SettingError, match=r"streamer\.key_secret belongs to"):
        make(cluster)


def test_answer_that_is_no_secret_is_refused(cluster: KubeApi) -> None:
    """A proxy answers 200 with a page of its own."""
    cluster.plan = lambda number, method, name: 200
    with pytest.raises(KubernetesError, match="is no Secret"):
        make(cluster)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--broker-secret=A_b", *_FLAGS[1:]), "--broker-secret: 'A_b'"),
        (("--broker-secret=a/../b", *_FLAGS[1:]), "--broker-secret: 'a/../b'"),
        (("--broker-secret=", *_FLAGS[1:]), "--broker-secret: ''"),
        (("--broker-secret=" + "a" * 254, *_FLAGS[1:]), "--broker-secret: 'aaa"),
        ((f"--broker-secret={NAMES.streamer}", *_FLAGS[1:]), "another name than the others"),
    ],
)
def test_names_that_are_no_names_are_refused(
    cluster: KubeApi, flags: tuple[str, ...], told: str
) -> None:
    """A value of the chart goes into a path of the API."""
    account = f"--account={cluster.access.account}"
    got = telemq("keys", "kubernetes", *flags, account, **variables(cluster))
    assert 2 == got.returncode
    assert told in got.stderr
    assert [] == cluster.calls


def test_two_jobs_at_once_agree(cluster: KubeApi, tmp_path: Path) -> None:
    """An upgrade is started twice; the property test has every order, this has the real parts."""
    together = threading.Barrier(6)
    errors: list[TelemqError] = []

    def run() -> None:
        together.wait(DEADLINE_S)
        try:
            make(cluster)
        except TelemqError as error:
            errors.append(error)

    for round_ in range(5):
        cluster.secrets.clear()
        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == errors
        assert_fits(cluster, tmp_path / str(round_))
