"""Every check of the project: plain ``nox`` runs all that CI runs.

``nox -l`` lists the sessions; ``nox -s tests -- -k lease`` passes arguments on to pytest.
"""

import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.reuse_existing_virtualenvs = True
# CI machines have some of the Pythons, not all.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "tests", "e2e", "faults", "browser", "others", "bench", "docs"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
#: What is started as processes and killed, or drawn by a browser, has a session of its own.
FAST = "not e2e and not faults and not browser"


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


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, its formatter, and mypy --strict over both packages, the tests and the examples."""
    install(session, "lint", "test", "browser", "bench")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "src", "cli")
    session.run("mypy", "tests", "examples", "hatch_build.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything but whole pipelines and browsers, on the running Python, with coverage."""
    install(session, "test", "bench")
    session.run("pytest", "-m", FAST, "--cov", "--cov-report=term:skip-covered", *session.posargs)


@nox.session(python=[python for python in PYTHONS if python != RUNNING])
def others(session: nox.Session) -> None:
    """The same tests on the other supported Pythons that this machine has."""
    install(session, "test")
    session.run("pytest", "-m", FAST, "-q", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """The whole pipeline as processes."""
    install(session, "test")
    session.run("pytest", "-m", "e2e", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault of the fault table that has a test."""
    install(session, "test")
    session.run("pytest", "-m", "faults", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Pages in a headless Chromium, with the network closed."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.skip("no Chromium on the PATH; Debian: apt-get install chromium")
    install(session, "test", "browser")
    session.run("pytest", "-m", "browser", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Beside the rivals, small, to see that it works; ``-- --full`` takes the figures.

    ``nox -s bench -- --full --json docs/performance.json --page docs/performance.md`` makes the
    page. Redis and beanstalkd are measured where Debian's packages are.
    """
    install(session, "test", "bench")
    session.run("python", "-m", "tests.bench.sidebyside", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Pages that are made from the code are up to date, and the examples run."""
    install(session, "test")
    session.run("pytest", "tests/docs", "-q", *session.posargs)
    session.run("python", "-m", "compileall", "-q", str(Path("examples")))
