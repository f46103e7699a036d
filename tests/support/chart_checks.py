"""What must hold of the chart with any values: each check gives what is wrong, in words.

They are functions over one rendering, so that the default values, the combinations, Hypothesis and
the planted faults all use the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.support import chart_checks_links as links
from tests.support import chart_checks_objects as objects
from tests.support import chart_checks_pods as pods
from tests.support.chart import Rendered
from tests.support.chart_schemas import schemas

__all__ = ["CHECKS", "problems"]

CHECKS: dict[str, Callable[[Rendered], Iterator[str]]] = {
    check.__name__: check
    for check in (
        *(schemas, objects.names, objects.secrets, objects.hooks, objects.policies),
        *(pods.restricted, pods.resources, pods.tokens, pods.variables, pods.starts),
        *(pods.probes, pods.ports, pods.volumes, pods.stopping),
        *(links.services, links.budgets, links.scalers, links.monitors, links.routes),
        *(links.selectors, links.references),
    )
}


def problems(rendered: Rendered) -> list[str]:
    """Give what any check says, with the check's name."""
    return [f"{name}: {text}" for name, check in CHECKS.items() for text in check(rendered)]
