"""Each component as a container: it starts, is healthy, and drains in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pipeline import DRAIN_S, PORTS, Pipeline, running_pipeline
from tests.support.podman import Container, Podman
from tests.support.running import eventually

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def pipeline(
    podman: Podman, image: str, postgres_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    with running_pipeline(
        podman, image, postgres_image, tmp_path_factory.mktemp("components") / "run"
    ) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def running(pipeline: Pipeline) -> dict[str, Container]:
    """One of each, streaming for ever."""
    return {
        component: pipeline.start(component, **({"rate": "500"} if component == "streamer" else {}))
        for component in PORTS
    }


@pytest.mark.parametrize("component", PORTS)
def test_component_is_ready_and_healthy(
    pipeline: Pipeline, running: dict[str, Container], component: str
) -> None:
    """`docker run --read-only --cap-drop ALL` of the image."""
    container = running[component]
    pipeline.ready(component, container)
    # The engine, too, asks three times before it gives up: a busy machine may miss five seconds.
    eventually(container.healthy, f"{component} is healthy", 45)
    assert "healthy" == container.state["Health"]["Status"]
    known = pipeline.podman.inspect(container.name)
    assert "10001:10001" == known["Config"]["User"]
    assert known["HostConfig"]["ReadonlyRootfs"]
    assert not known["EffectiveCaps"]
    told = container.execute("telemq", "health").stdout
    assert told.startswith(f"{component} http://0.0.0.0:{PORTS[component]}: ready")


def test_component_that_cannot_work_becomes_unhealthy(pipeline: Pipeline) -> None:
    """Its broker is not there."""
    collector = pipeline.start("collector", broker="tcp://127.0.0.1:1")
    eventually(lambda: collector.answers(PORTS["collector"], "/healthz"), "the collector answers")
    assert not collector.healthy()
    got = collector.execute("telemq", "health", check=False)
    assert 1 == got.returncode
    assert "it answered 503: " in got.stderr
    assert 0 == collector.execute("telemq", "health", "--live").returncode


@pytest.mark.parametrize("component", ["streamer", "collector", "broker", "api"])
def test_sigterm_drains_and_ends(
    pipeline: Pipeline, running: dict[str, Container], component: str
) -> None:
    """`docker stop`, or a rolling upgrade: in the order of the flow."""
    pipeline.ready("api", running["api"])
    if component == "streamer":
        eventually(lambda: pipeline.stored() > 0, "rows are stored")
    code, took_s = running[component].drain(DRAIN_S)
    print(f"{component} ended in {took_s:.1f} s")
    assert 0 == code, running[component].logs()
