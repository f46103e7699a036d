"""Every check of the project: plain ``nox`` runs all that CI runs.

``nox -l`` lists the sessions; ``nox -s tests -- -k lease`` passes arguments on to pytest.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

nox.needs_version = ">=2025.5"
nox.options.reuse_existing_virtualenvs = True
# CI machines have some of the Pythons, not all.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    *("lint", "tests", "e2e", "faults", "browser", "others"),
    *("chart", "bench"),
]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Simulations, and searches for planted faults: minutes of the broker's rules, which tracing every
#: line doubles, and shows nothing that the other tests do not.
UNTRACED = (
    "tests/sim",
    "tests/property/test_broker_planted_faults.py",
    "tests/property/test_journal_planted_faults.py",
)
#: Tests wait more than they compute: for commits, leases that end, processes that start. Not those
#: of the chart, which compute, and count together what they tried.
AT_ONCE = ("-n", "3", "--dist", "worksteal")
#: What is started as processes and killed, drawn by a browser, rendered or run as a container has
#: its own session.
FAST = "not e2e and not faults and not browser and not chart and not image"


def install(session: nox.Session, *groups: str) -> None:
    """Install the project and dependency groups, in exactly the versions of uv.lock.

    uv only reads the lock file. pip downloads, because it knows the index and the certificates that
    this machine is set up with; uv has its own ideas of both.
    """
    locked = str(Path(session.create_tmp()) / "locked.txt")
    session.install("--quiet", "uv")
    session.run_install(
        "uv", "export", "--frozen", "--offline", "--quiet", "--no-default-groups",
        "--no-emit-project", "--no-hashes", *(f"--group={group}" for group in groups),
        "--output-file", locked,
    )  # fmt: skip
    session.install("--quiet", "-r", locked)
    session.install("--quiet", "--no-deps", "-e", ".")


@contextmanager
def short_folder() -> Iterator[str]:
    """Give a temporary folder that goes with what runs in it, and whose name is short.

    The address of a Unix-domain socket has at most 107 bytes, and nox's own temporary folder, which
    TMPDIR names once `install` has used it, is as deep as the checkout that it lies in.
    """
    with TemporaryDirectory(prefix="tq-", ignore_cleanup_errors=True) as folder:
        yield folder


def pytest(session: nox.Session, *args: str) -> None:
    """Run pytest in a folder of its own."""
    with short_folder() as folder:
        session.run("pytest", f"--basetemp={folder}/t", *args, env={"TMPDIR": folder})


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, its formatter, and mypy --strict over both packages, the tests and the examples."""
    install(session, "lint", "test", "browser", "chart", "bench")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "src", "cli")
    session.run("mypy", "tests", "examples", "hatch_build.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything but whole pipelines and browsers, on the running Python, with coverage."""
    install(session, "test", "bench")
    coverage = ("--cov", "--cov-report=term:skip-covered")
    if session.posargs:
        pytest(session, "-m", FAST, *coverage, *session.posargs)
        return
    apart = [f"--ignore={path}" for path in UNTRACED]
    pytest(session, "-m", FAST, *AT_ONCE, *coverage, *apart)
    pytest(session, "-m", FAST, *AT_ONCE, *UNTRACED)


@nox.session(python=[python for python in PYTHONS if python != RUNNING])
def others(session: nox.Session) -> None:
    """The same tests on the other supported Pythons that this machine has."""
    install(session, "test", "bench")
    pytest(session, "-m", FAST, "-q", *AT_ONCE, *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """The whole pipeline as processes."""
    install(session, "test")
    pytest(session, "-m", "e2e", *(session.posargs or AT_ONCE))


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault of the fault table that has a test."""
    install(session, "test")
    pytest(session, "-m", "faults", *(session.posargs or AT_ONCE))


@nox.session
def browser(session: nox.Session) -> None:
    """Pages in a headless Chromium, with the network closed."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.skip("no Chromium on the PATH; Debian: apt-get install chromium")
    install(session, "test", "browser")
    pytest(session, "-m", "browser", *session.posargs)


@nox.session
def image(session: nox.Session) -> None:
    """The image built without a registry, and all that runs it; six minutes, so ask by name."""
    needed = ("podman", "iptables", "mmdebstrap")
    if missing := [name for name in needed if shutil.which(name) is None]:
        session.skip(
            f"no {' and no '.join(missing)} on the PATH; "
            "Debian: apt-get install podman runc netavark aardvark-dns iptables mmdebstrap"
        )
    install(session, "test", "chart", "image")
    session.install("--quiet", "uv")
    pytest(session, "tests/image", "-s", "--timeout=900", *session.posargs)


@nox.session
def chart(session: nox.Session) -> None:
    """The Helm chart by Helm's own engine: no cluster, no helm binary."""
    install(session, "test", "chart")
    session.run("python", "-m", "deploy.helm.generate", "--check")
    pytest(session, "tests/chart", "-m", "chart", *session.posargs)
    session.run("python", "-m", "tests.chart.manifests", str(session.cache_dir / "manifests"))
    session.notify("checkov", posargs=())


@nox.session
def checkov(session: nox.Session) -> None:
    """Checkov over what the session chart rendered, and the Dockerfile, without the network.

    It has an environment of its own because it pins versions that the project does not want.
    """
    manifests = session.cache_dir / "manifests"
    if not manifests.is_dir():
        session.error("nothing is rendered yet: nox -s chart does it, and then runs this")
    session.install("--quiet", "checkov==3.3.30", "pyyaml")
    session.run("python", "tests/chart/checkov_findings.py", str(manifests))


@nox.session
def bench(session: nox.Session) -> None:
    """Beside the rivals, small, to see that it works; ``-- --full`` takes the figures.

    ``nox -s bench -- --full --json docs/performance.json --page docs/performance.md`` makes the
    page. Redis, RabbitMQ and beanstalkd are measured where Debian's packages are.
    """
    install(session, "test", "bench")
    with short_folder() as folder:
        session.run(
            "python", "-m", "tests.bench.sidebyside", *session.posargs, env={"TMPDIR": folder}
        )


@nox.session
def docs(session: nox.Session) -> None:
    """Pages that are made from the code are up to date, and the examples run; so does "tests"."""
    install(session, "test")
    pytest(session, "tests/docs", "-q", *session.posargs)
    session.run("python", "-m", "compileall", "-q", str(Path("examples")))
