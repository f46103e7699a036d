"""Writes the dashboards of deploy/grafana: ``python -m deploy.grafana.generate``.

Each panel's SQL stands once, in `queries`; what a test needs to know of its answer is beside it.
"""
