"""The pipeline as containers, scaled while it runs, its broker killed: nothing lost, none twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipeline import PORTS, running_pipeline
from tests.support.podman import Podman
from tests.support.running import eventually
from tests.support.sample import sample_gpus

pytestmark = pytest.mark.image

ROWS = 30_000


def test_rows_are_stored_exactly_once_through_scaling_and_a_killed_broker(
    podman: Podman, image: str, postgres_image: str, tmp_path: Path
) -> None:
    """A day in production, by hand: one of each, then four, and a node that is gone."""
    with running_pipeline(podman, image, postgres_image, tmp_path / "run") as pipeline:
        settings = {"rate": "500", "rows": str(ROWS)}
        broker = pipeline.start("broker")
        api, first = pipeline.start("api"), pipeline.start("collector")
        streamers = [pipeline.start("streamer", **settings)]
        for component, container in (
            ("broker", broker), ("api", api), ("collector", first), ("streamer", streamers[0]),
        ):  # fmt: skip
            pipeline.ready(component, container)
        eventually(lambda: pipeline.stored() > 1000, "the first rows are stored")

        # Streamers last: the kill is to come while there is much left to stream.
        collectors = [pipeline.start("collector") for _ in range(3)]
        for container in collectors:
            pipeline.ready("collector", container)
        streamers += [pipeline.start("streamer", **settings) for _ in range(3)]
        before = pipeline.stored()
        broker.kill()
        assert 137 == broker.wait()
        assert before < ROWS, "the stream ended before the kill"
        podman.run("start", broker.name)
        pipeline.ready("broker", broker)

        assert [0] * 4 == [container.wait(120) for container in streamers]
        eventually(lambda: pipeline.stored() >= ROWS, "all rows are stored", 30)
        verify = pipeline.command("verify")
        assert 0 == verify.wait(), verify.logs()
        assert ROWS == pipeline.stored()
        assert f"complete: {ROWS:,} samples stored in 1 streams, 0 rows in flight" in verify.logs()

        answer = api.get(PORTS["api"], "/api/v1/gpus")
        assert answer is not None
        assert sample_gpus() == answer.json()
        print(
            f"{ROWS:,} rows stored, the broker killed after {before:,}; {len(sample_gpus())} GPUs"
        )
