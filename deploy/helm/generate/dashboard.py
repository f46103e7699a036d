"""The Grafana dashboard: where its panels stand, in the shape that Grafana imports."""

from __future__ import annotations

from typing import Any

from deploy.helm.generate.panels import PANELS, Panel

__all__ = ["dashboard", "expressions"]

_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: What the dashboard's variables choose; every expression has it.
_WHERE = 'namespace=~"$namespace"'


def expressions() -> list[str]:
    """Give every expression as Prometheus gets it, but for the dashboard's variables."""
    return [
        expression.replace("%", _WHERE)
        for panels in PANELS.values()
        for panel in panels
        for _, expression in panel.lines
    ]


def dashboard() -> dict[str, Any]:
    """Give the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in PANELS.items():
        at = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": at,
            }
        )
        y += 1
        x = 0
        height = 4 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            if x + panel.columns > _WIDTH:
                x, y = 0, y + height
            at = {"x": x, "y": y, "w": panel.columns, "h": height}
            panels.append(_panel(panel, len(panels) + 1, at))
            x += panel.columns
        y += height
    return {
        "uid": "telemq",
        "title": "telemq",
        "description": "GPU telemetry: queue, collectors, streamers, gateway.",
        "tags": ["telemq"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _choices()},
        "panels": panels,
    }


def _choices() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    query = 'label_values(process_start_time_seconds{job=~"telemq-.*"}, namespace)'
    namespace = {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "namespace"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, namespace]


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": _SOURCE,
            "expr": expression.replace("%", _WHERE),
            "legendFormat": legend,
        }
        for n, (legend, expression) in enumerate(panel.lines)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 10, "stacking": stacking}
    if panel.warn is not None:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": "yellow", "value": panel.warn}, {"color": "red", "value": panel.bad}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }
