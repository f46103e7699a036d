"""What a machine can check of ARCHITECTURE.md: what may import what, and how long it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("src/telemq/**/*.py"), *ROOT.glob("cli/telemq_cli/**/*.py")])

#: Rules that decide and never act.
PURE = {
    "telemq.errors", "telemq.record", "telemq.codec", "telemq.protocol", "telemq.frames",
    "telemq.grouping", "telemq.spelling",
    "telemq.setting", "telemq.settings", "telemq.sizing", "telemq.terminal", "telemq.csv_safe",
    "telemq.engine_settings", "telemq.helm_values", "telemq.variables",
    "telemq.broker.core", "telemq.broker.inventory", "telemq.broker.credit",
    "telemq.broker.lease", "telemq.broker.peers", "telemq.broker.queue", "telemq.broker.limits",
    "telemq.broker.bundle", "telemq.broker.intake", "telemq.broker.packing",
    "telemq.broker.stats", "telemq.broker.check", "telemq.broker.offenders",
    "telemq.broker.blocks",
    "telemq.broker.entries",
    "telemq.broker.journaled",
    "telemq.broker.admission", "telemq.broker.snapshot",
    "telemq.settings_ways", "telemq.settings_common", "telemq.settings_broker",
    "telemq.settings_once", "telemq.settings_store", "telemq.settings_protect", "telemq.token",
    "telemq.gateway.rate", "telemq.settings_look",
    "telemq.settings_latest", "telemq.dcgm", "telemq.gateway.board", "telemq.gateway.fanout",
    "telemq.broker.local",
    "telemq.store.telemetry_query", "telemq.store.samples", "telemq.store.fleet_query",
    "telemq.gateway.fleet_views",
    "telemq.settings_fleet",
    "telemq.client.session", "telemq.client.producer", "telemq.client.consumer",
    "telemq.client.fitting", "telemq.client.labels", "telemq.client.numbered", "telemq.endpoint",
    "telemq.client.settling",
    "telemq.streamer.pacing", "telemq.collector.batcher", "telemq.watch.numbers",
    "telemq.look.board", "telemq.look.names", "telemq.look.place",
}  # fmt: skip
ACTING = {
    "zmq", "psycopg", "psycopg_pool", "asyncio", "logging", "structlog", "time", "random",
    "socket", "os", "threading", "subprocess", "multiprocessing", "litestar", "uvicorn",
    "telemq.log", "telemq.health", "telemq.process",
}  # fmt: skip
#: What people start; they meet in the protocol, the records and the store, never in each other.
SERVICES = ("gateway", "streamer", "collector", "up", "top", "look")
#: What may only be imported from above, lowest first.
LAYERS = (
    (
        "record",
        "codec",
        "grouping",
        "spelling",
        "protocol",
        "frames",
        "errors",
        "setting",
        "settings",
        "sizing",
        "settings_ways",
        "settings_common",
        "settings_broker",
        "settings_once",
        "settings_store",
        "settings_latest",
        "dcgm",
        "settings_look",
        "settings_fleet",
        "settings_protect",
        "token",
        "engine_settings",
        "helm_values",
        "variables",
        "clock",
        "endpoint",
        "terminal",
        "csv_safe",
    ),
    (
        "log",
        "health",
        "probe",
        "process",
        "memory",
        "upfile",
        "certificate",
        "keys",
        "kubernetes",
        "web",
        "dashboard",
    ),
    ("client", "broker", "store", "sources", "watch"),
    ("engine",),
    (*SERVICES, "bench"),
)


def name_of(path: Path) -> str:
    """Give a module's dotted name."""
    relative = path.relative_to(ROOT / ("src" if "src" in path.parts else "cli"))
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def layer_of(name: str) -> int:
    """Give the height of a module of telemq; -1 for what stands outside of the layers."""
    part = [*name.split("."), ""][1]
    return next((height for height, layer in enumerate(LAYERS) if part in layer), -1)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """Someone imports a service from a rule, or one service from another."""
    name = name_of(path)
    for imported in imports(path):
        assert not (name.startswith("telemq.") and imported.startswith("telemq_cli")), imported
        if not (name.startswith("telemq.") and imported.startswith("telemq.")):
            continue
        assert layer_of(imported) <= layer_of(name), f"{name} imports {imported} from above"
        own, other = name.split(".")[1], imported.split(".")[1]
        if own in SERVICES and other in SERVICES:
            assert own == other, f"the service {own} imports the service {other}"


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) in PURE], ids=name_of)
def test_rules_are_pure(path: Path) -> None:
    """Someone reads the clock or logs inside a rule, and it cannot be replayed any more."""
    acting = {i for i in imports(path) if i in ACTING or i.split(".")[0] in ACTING}
    assert set() == acting


def test_every_pure_module_exists() -> None:
    """A rule's module was renamed, and nobody checks it any more."""
    assert set() == PURE - {name_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_readable_in_one_sitting(path: Path) -> None:
    """A module grew past its design."""
    text = path.read_text()
    assert len(text.splitlines()) <= 420, "over 400 lines: one design hiding two"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 75, f"{node.name} has {length} lines"


def test_every_public_module_lists_what_it_offers() -> None:
    """A module says in ``__all__`` what is meant for others, and every name there exists."""
    for path in MODULES:
        tree = ast.parse(path.read_text())
        public = {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
        }
        listed = next(
            (
                set(ast.literal_eval(node.value))
                for node in tree.body
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "__all__"
            ),
            None,
        )
        if public and name_of(path).startswith("telemq."):
            assert listed is not None, f"{name_of(path)} has no __all__"
            assert public <= listed, f"{name_of(path)} does not list {public - listed}"
