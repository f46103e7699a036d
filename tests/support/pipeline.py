"""The whole pipeline as containers on one network, run by podman as a person would by hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from tests.support.keys import Keys
from tests.support.podman import TMP, Container, Podman
from tests.support.running import eventually

__all__ = ["DRAIN_S", "GID", "PORTS", "SAMPLE", "Pipeline", "open_to", "running_pipeline"]

#: Where each component answers /readyz.
PORTS = {"broker": 9601, "streamer": 9602, "collector": 9603, "api": 8080}
#: The defaults of telemq, and a second for the end of a process on a busy machine.
DRAIN_S = 10.0 + 1.0
SAMPLE = "/usr/share/telemq/dcgm_sample.csv"
#: Of the image's user.
GID = 10001
_WORDS = {
    "broker": ("broker",),
    "streamer": ("stream", "csv", SAMPLE),
    "collector": ("collect",),
    "api": ("api",),
}
_PASSWORD = "not-a-secret"


def open_to(directory: Path, gid: int) -> Path:
    """Let a group read what is below, and nobody else, as the kubelet does for a Secret."""
    for path in (directory, *directory.rglob("*")):
        os.chown(path, 0, gid)
        path.chmod(0o750 if path.is_dir() else 0o440)
    return directory


@dataclass
class Pipeline:
    """Postgres and any number of components, which find each other by name.

    Attributes:
        podman: runs them.
        image: of telemq.
        network: theirs.
        keys: CURVE keys; the broker's directory and what each kind of peer has.
        postgres: started.
    """

    podman: Podman
    image: str
    network: str
    keys: Path
    postgres: Container
    _count: dict[str, int] = field(default_factory=dict)

    def start(self, component: str, **settings: str) -> Container:
        """Start one more of a component; further settings by the end of their variable."""
        number = self._count[component] = self._count.get(component, 0) + 1
        prefix = f"TELEMQ_{component.upper()}_"
        env = {
            "TELEMQ_INSECURE": "true",  # the ops addresses have no keys, and nobody comes in here
            "TELEMQ_DSN": self.dsn("telemetry-postgres"),
            **{prefix + name.upper(): value for name, value in self._settings(component).items()},
            **{prefix + name.upper(): value for name, value in settings.items()},
        }
        options = [f"--network={self.network}", f"--volume={self.keys / component}:/keys:ro"]
        if component == "broker":
            options[0] += ":alias=telemetry-mq"
            del env["TELEMQ_DSN"]
        return self.podman.start(
            self.image,
            *_WORDS[component],
            options=options,
            env=env,
            name=f"{self.network[-4:]}-{component}-{number}",
        )

    def _settings(self, component: str) -> dict[str, str]:
        if component == "broker":
            return {
                "producer_bind": "tcp://*:5601",
                "consumer_bind": "tcp://*:5602",
                "ops_address": "0.0.0.0:9601",
                "keys": "/keys",
            }
        if component == "api":
            return {"address": "0.0.0.0:8080"}
        return {
            "broker": f"tcp://telemetry-mq:{5601 if component == 'streamer' else 5602}",
            "ops_address": f"0.0.0.0:{PORTS[component]}",
            "key": f"/keys/{component}.key_secret",
            "broker_key": "/keys/broker.key",
        }

    def ready(self, component: str, container: Container) -> None:
        """Wait until it can work."""
        try:
            eventually(lambda: container.answers(PORTS[component]), f"{component} is ready", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{container.logs()}") from None

    def dsn(self, host: str) -> str:
        """Give the database's DSN."""
        return make_conninfo(host=host, user="telemq", password=_PASSWORD, dbname="telemq")

    def stored(self) -> int:
        """Count the rows that are stored, from the host."""
        with psycopg.connect(self.dsn(self.postgres.address)) as connection:
            found = connection.execute("SELECT count(*) FROM sample").fetchone()
        assert found is not None
        return int(found[0])

    def command(self, *words: str) -> Container:
        """Start a command of telemq that ends by itself."""
        options = (f"--network={self.network}",)
        dsn = {"TELEMQ_DSN": self.dsn("telemetry-postgres")}
        return self.podman.start(self.image, *words, options=options, env=dsn)


def make_keys(directory: Path) -> Path:
    """Make a broker's keys and those of its peers: what each component has, in its folder."""
    keys = Keys(directory / "made")
    for component, role in (("streamer", "producer"), ("collector", "consumer")):
        keys.peer(component, role)  # type: ignore[arg-type] # of the two words above
        own = directory / component
        own.mkdir()
        for file in (keys.secret_file(component), keys.broker_file):
            (own / file.name).write_bytes(file.read_bytes())
    (directory / "api").mkdir()
    Path(keys.path).rename(directory / "broker")
    return open_to(directory, GID)


@contextlib.contextmanager
def running_pipeline(
    podman: Podman, image: str, postgres_image: str, scratch: Path
) -> Iterator[Pipeline]:
    """Start a network and Postgres on it; yields what starts the rest, and removes it all."""
    scratch.mkdir()
    secret = scratch / "password"
    secret.write_text(_PASSWORD)
    secret.chmod(0o444)
    network = podman.network()
    postgres = podman.start(
        postgres_image,
        options=(
            f"--network={network}:alias=telemetry-postgres",
            *TMP,
            "--volume=/run/postgresql",
            "--volume=/var/lib/postgresql",
            f"--volume={secret}:/run/password:ro",
        ),
        env={
            "POSTGRES_USER": "telemq",
            "POSTGRES_DB": "telemq",
            "POSTGRES_PASSWORD_FILE": "/run/password",
            "PGDATA": "/var/lib/postgresql/pgdata",
        },
        name=f"{network[-4:]}-postgres",
    )
    pipeline = Pipeline(podman, image, network, make_keys(scratch / "keys"), postgres)
    try:

        def accepts() -> bool:
            assert postgres.state["Running"], postgres.logs()
            try:
                psycopg.connect(pipeline.dsn(postgres.address), connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(accepts, "Postgres accepts connections", 60)
        yield pipeline
    finally:
        ids = podman.run("ps", "--all", "--quiet", f"--filter=network={network}").stdout.split()
        podman.run("rm", "--force", "--time=0", "--volumes", *ids)
        podman.run("network", "rm", network)
