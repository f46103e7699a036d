"""Makes what the chart repeats from elsewhere: run ``python -m deploy.helm.generate``.

One table of settings (`telemq.settings`), one file of values with a comment each, one file of alert
rules; from these come the maps called ``settings``, the template that turns them into variables,
``values.schema.json``, the chart's README, its copy of the alerts and its dashboard.
"""
