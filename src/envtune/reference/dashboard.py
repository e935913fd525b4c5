"""templates/grafana/dashboard.json: a Grafana dashboard of every metric, for its import form.

One panel a metric, each pod a line; the data source is asked for when it is imported.
"""

import json
from typing import Any

from envtune.watch.metrics import METRICS, Row

# Grafana's grid is 24 wide.
_WIDTH, _HEIGHT, _ACROSS = 8, 7, 3
_SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
_UNITS = {"bytes": "bytes", "seconds": "s"}


def text() -> str:
    """The dashboard as JSON."""
    return json.dumps(dashboard(), indent=1) + "\n"


def dashboard() -> dict[str, Any]:
    """The dashboard in the form that Grafana 9 and later import."""
    return {
        "__inputs": [
            {"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource",
             "pluginId": "prometheus", "pluginName": "Prometheus"},
        ],
        "title": "envtune",
        "uid": "envtune",
        "schemaVersion": 37,
        "tags": ["envtune"],
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_pods()]},
        "panels": [_panel(number, row) for number, row in enumerate(METRICS)],
    }  # fmt: skip


def _pods() -> dict[str, Any]:
    query = f"label_values({METRICS[0].name}, pod)"
    return {
        "name": "pod", "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2,
        "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _panel(number: int, row: Row) -> dict[str, Any]:
    unit = next((u for word, u in _UNITS.items() if word in row.name.split("_")[1:]), "short")
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": row.meaning,
        "datasource": _SOURCE,
        "gridPos": {
            "x": number % _ACROSS * _WIDTH, "y": number // _ACROSS * _HEIGHT,
            "w": _WIDTH, "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": "A", "datasource": _SOURCE, "expr": _asked(row), "legendFormat": "{{pod}}"}
        ],
    }  # fmt: skip


def _asked(row: Row) -> str:
    """The metric of the chosen pods; one that says nothing of a pod has an empty label."""
    return f'{row.name}{{pod=~"$pod|"}}'
