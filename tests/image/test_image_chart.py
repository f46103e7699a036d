"""What the chart renders, as real pods: streaming, scaled, its broker killed, and verified."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.support.chart import Values, render
from tests.support.keys import Keys
from tests.support.kubelet import Cluster, Pod
from tests.support.podman import Podman
from tests.support.running import eventually
from tests.support.sample import sample_gpus

pytestmark = pytest.mark.image

ROWS = 40_000


def secrets(scratch: Path) -> dict[str, dict[str, bytes]]:
    """Make the Secrets that the chart's keys Job makes through the API, by `telemq keys`' code."""
    keys = Keys(scratch)
    pairs = {"streamer": keys.peer_files("streamer", "producer")}
    pairs["collector"] = keys.peer_files("collector", "consumer")
    broker = Path(keys.path)
    public = keys.broker_file.read_bytes()
    made = {
        f"telemetry-{peer}-key": {f"{peer}.key_secret": secret, "broker.key": public}
        for peer, (_, secret) in pairs.items()
    }
    made["telemetry-mq-keys"] = {
        "broker.key": public,
        "broker.key_secret": (broker / "broker.key_secret").read_bytes(),
        **{f"{peer}.key": own for peer, (own, _) in pairs.items()},
    }
    return made


def values(image: str, postgres_image: str) -> Values:
    """The chart's defaults, with the images of this machine and a stream that ends."""
    return {
        "image": {"repository": image, "tag": "latest"},
        "postgres": {"image": {"repository": postgres_image, "tag": "latest"}},
        "streamer": {"rate": 300, "settings": {"rows": ROWS}},
    }


def stored(cluster: Cluster, dsn: str) -> int:
    """Count the rows that are stored, from the host."""
    (postgres,) = cluster.pods["postgres"]
    with psycopg.connect(dsn, hostaddr=postgres.main.address) as connection:
        found = connection.execute("SELECT count(*) FROM sample").fetchone()
    assert found is not None
    return int(found[0])


def restricted(pod: Pod, uid: int) -> None:
    """Check a running container against what Pod Security "restricted" asks for."""
    known = pod.main.podman.inspect(pod.main.name)
    assert not known["EffectiveCaps"], pod.name
    assert known["HostConfig"]["ReadonlyRootfs"], pod.name
    assert "no-new-privileges" in known["HostConfig"]["SecurityOpt"], pod.name
    assert f"{uid}\n" == pod.main.execute("id", "-u").stdout, pod.name


def test_rendered_pipeline_stores_every_row_once_through_scaling_and_a_killed_broker(
    podman: Podman, image: str, postgres_image: str, tmp_path: Path
) -> None:
    """`helm install`, `kubectl scale`, and a broker's node that is gone."""
    rendered = render(values(image, postgres_image), namespace="default")
    cluster = Cluster(podman, rendered, secrets(tmp_path / "keys"), tmp_path)
    dsn = cluster.secret("telemetry-postgres", "dsn").decode()

    cluster.await_ready(cluster.scale("postgres", 1))
    for component in ("broker", "collector", "api", "streamer"):
        cluster.scale(component, 1)
    for component, pods in cluster.pods.items():
        cluster.await_ready(pods)
        restricted(pods[0], 999 if component == "postgres" else 10001)
    eventually(lambda: stored(cluster, dsn) > 1000, "the first rows are stored")

    # Streamers last: the kill is to come while there is much left to stream.
    cluster.await_ready(cluster.scale("collector", 4))
    cluster.scale("streamer", 4)
    before = stored(cluster, dsn)
    (broker,) = cluster.pods["broker"]
    broker.main.kill()
    cluster.await_ready([cluster.replace(broker)])
    assert before < ROWS, "the stream ended before the kill"

    eventually(lambda: stored(cluster, dsn) >= ROWS, "all rows are stored", 120)
    verdict = cluster.run_pod("telemetry-verify").logs()
    assert f"complete: {ROWS:,} samples stored in 1 streams, 0 rows in flight" in verdict
    assert ROWS == stored(cluster, dsn)
    (api,) = cluster.pods["api"]
    stranger = api.main.get(8080, "/api/v1/gpus")
    assert stranger is not None
    assert 401 == stranger.status_code
    token = api.main.execute("telemq", "tokens", "new", "tester", "--scope", "read").stdout.strip()
    answer = api.main.get(8080, "/api/v1/gpus", {"Authorization": f"Bearer {token}"})
    assert answer is not None
    assert sample_gpus() == answer.json()
    counts = ", ".join(f"{len(pods)} {component}" for component, pods in cluster.pods.items())
    print(
        f"pods of the chart: {counts}, each restricted; "
        f"{ROWS:,} rows stored, the broker killed after {before:,}; {len(sample_gpus())} GPUs"
    )
