"""A board in the shape that Grafana provisions and imports."""

from __future__ import annotations

from typing import Any

from deploy.grafana.generate.panel import Board, Choice, Panel

__all__ = ["dashboard"]

_WIDTH = 24
_TYPE = "grafana-postgresql-datasource"
_SOURCE = {"type": _TYPE, "uid": "${datasource}"}
#: Narrower parts than this have no sample of a metric that is scraped once a minute.
_INTERVAL = "1m"


def dashboard(board: Board) -> dict[str, Any]:
    """Give a board as Grafana imports it."""
    source = {
        "name": "datasource",
        "label": "Database",
        "type": "datasource",
        "query": _TYPE,
        "refresh": 1,
    }
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.about,
        "tags": ["telemq"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": board.refresh,
        "time": {"from": f"now-{board.hours}h", "to": "now"},
        "links": [
            {
                "title": "telemq",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "",
                "tags": ["telemq"],
                "asDropdown": True,
                "targetBlank": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "templating": {"list": [source, *map(_choice, board.choices)]},
        "panels": _placed(board),
    }


def _placed(board: Board) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in board.panels.items():
        if title:
            at = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
            head = {"type": "row", "title": title, "collapsed": False, "gridPos": at, "panels": []}
            panels.append({"id": len(panels) + 1, **head})
            y += 1
        x, height = 0, 0
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y, height = 0, y + height, 0
            at = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append(_panel(panel, len(panels) + 1, at))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return panels


def _choice(choice: Choice) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": choice.name,
        "label": choice.label,
        "type": "query",
        "datasource": _SOURCE,
        "query": choice.sql,
        "refresh": 1,
        "sort": 0,
        "includeAll": choice.several,
        "multi": choice.several,
    }
    if choice.several:
        told["current"] = {"text": ["All"], "value": ["$__all"]}
    return told


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    target = {
        "refId": "A",
        "datasource": _SOURCE,
        "format": panel.format,
        "rawQuery": True,
        "editorMode": "code",
        "rawSql": panel.sql,
    }
    told: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        "targets": [target],
    }
    if panel.about:
        told["description"] = panel.about
    if panel.kind == "timeseries":
        told["interval"] = _INTERVAL
    return told


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        mode = "normal" if panel.stacked else "none"
        custom = {"fillOpacity": 10, "stacking": {"mode": mode, "group": "A"}}
        defaults |= {"min": 0, "custom": custom}
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.kind == "stat":
        # Grafana's own default is red from 80 on, whatever is shown.
        plain: list[dict[str, Any]] = [{"color": "text", "value": None}]
        defaults["thresholds"] = {"mode": "absolute", "steps": plain}
    if panel.limits is not None:
        defaults["thresholds"] = _thresholds(*panel.limits)
    return defaults


def _thresholds(warn: float, bad: float) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"color": "green", "value": None},
        {"color": "yellow", "value": warn},
        {"color": "red", "value": bad},
    ]
    return {"mode": "absolute", "steps": steps}


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    overrides = []
    for column in dict.fromkeys([*panel.units, *panel.links, *panel.column_limits]):
        properties: list[dict[str, Any]] = []
        if unit := panel.units.get(column):
            properties.append({"id": "unit", "value": unit})
        if url := panel.links.get(column):
            link = {"title": "Show this GPU", "url": url}
            properties.append({"id": "links", "value": [link]})
        overrides.append({"matcher": {"id": "byName", "options": column}, "properties": properties})
    return overrides


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value" if panel.limits or panel.column_limits else "none",
            "graphMode": "none",
        }
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return dict(panel.options)
