"""Variables that are named like telemq's own and that no setting has: most likely mistyped.

Only names are looked at, never values, for one of them may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from telemq.settings import table

__all__ = ["OTHERS", "unknown_variables"]

#: No settings, but read by the compose file, the systemd units and Grafana's data source.
OTHERS = frozenset(
    {"TELEMQ_CSV", "TELEMQ_IMAGE", "TELEMQ_PORT"}
    | {f"TELEMQ_GRAFANA_{what}" for what in ("HOST", "DATABASE", "SSLMODE", "PASSWORD")}
)
_PREFIX = "TELEMQ_"
#: More are counted: by then somebody has found a use of their own for the prefix.
_TOLD_MAX = 20
_CHARACTERS_MAX = 100
#: As many parts as have a setting of one name (DRAIN_S), so that all of them are shown.
_NEAREST_MAX = 5
#: For difflib: one letter of DSN is missing makes 0.8, two of them change places 0.67.
_ALIKE, _ROUGHLY = 0.8, 0.65
#: What Kubernetes makes of a Service, and Docker of a link, and nobody means for a setting.
_LINK = re.compile(
    r"(TELEMQ(?:_[A-Z0-9_]{1,100})?)_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]{1,100})?"
    r"|PORT_[0-9]{1,5}_(?:TCP|UDP|SCTP)(?:_[A-Z_]{1,20})?)"
)


def unknown_variables(names: Iterable[str]) -> tuple[dict[str, list[str]], int]:
    """Find what begins with ``TELEMQ_`` and is no variable of a setting of any part.

    `OTHERS` are left out, and what Kubernetes and Docker set for a service whose name begins with
    telemq. ``TELEMQ_API_PORT`` alone is none of theirs: they never set it without the others.

    Args:
        names: all of the environment's.

    Returns:
        The first 20, cut and in ASCII, each with the settings' variables that may have
        been meant (none to five); and how many more there are.
    """
    settings = {info.variable for info in table()}
    ours = {name for name in names if name.startswith(_PREFIX)} - settings - OTHERS
    services = {link[1] for name in ours if (link := _LINK.fullmatch(name))}
    linked = {f"{service}_{what}" for service in services for what in ("PORT", "NAME")}
    begins = tuple(f"{service}_ENV_" for service in services)
    unknown = sorted(n for n in ours - linked if not (_LINK.fullmatch(n) or n.startswith(begins)))
    told = [name[:_CHARACTERS_MAX] for name in unknown[:_TOLD_MAX]]
    # As ASCII: no escape sequence gets into the log, and no letter only looks like one of ours.
    return {ascii(n)[1:-1]: _nearest(n, settings) for n in told}, len(unknown) - len(told)


def _nearest(name: str, settings: Collection[str]) -> list[str]:
    # Without the prefix, which would make any two names alike.
    wanted = name.removeprefix(_PREFIX).upper()
    wholes = sorted(variable.removeprefix(_PREFIX) for variable in settings)
    # The part is left out (LINGER_MS), or given where a setting has none (API_DSN).
    found = [w for w in wholes if w.endswith(f"_{wanted}") or wanted.endswith(f"_{w}")]
    if len(found) > _NEAREST_MAX:
        found = []  # MAX is near to none of the many that end so.
    found += get_close_matches(wanted, wholes, cutoff=_ALIKE)
    if not found:
        # The wrong part (API_LINGER_MS), or no part and a typing error (LINGR_MS).
        owned = {w: w.partition("_")[2] for w in wholes if "_" in w}
        for text in (wanted, wanted.partition("_")[2]):
            near = get_close_matches(text, set(owned.values()), n=1, cutoff=_ALIKE)
            found += [w for w, setting in owned.items() if setting in near]
    found = found or get_close_matches(wanted, wholes, n=1, cutoff=_ROUGHLY)
    return [_PREFIX + w for w in dict.fromkeys(found)][:_NEAREST_MAX]
