"""Which value of the Helm chart sets which setting.

Most settings have an entry of the map ``settings``: that of their component (``broker.settings``),
or the chart's own for what several share. Those here have a value of another name and shape,
because the chart itself must know them, or because people look for that name.
"""

from __future__ import annotations

__all__ = ["CHART_COMPONENTS", "CHART_SETS", "STRUCTURED", "helm_value"]

#: Components whose settings the chart's values reach; the others do not run in a cluster.
CHART_COMPONENTS = ("", "broker", "streamer", "collector", "api", "maintain", "migrate", "keys")

#: What the chart sets by itself, and why there is no value for it.
CHART_SETS = {
    "TELEMQ_INSECURE": "services in pods listen on the pod's address; policies guard them",
    "TELEMQ_DATA_DIR": "the embedded Postgres does not run in a cluster",
    "TELEMQ_MAINTAIN_EVERY_S": "maintain.schedule starts each pass",
}

#: Variable to value.
STRUCTURED = {
    "TELEMQ_DSN": "postgres.external.dsnSecret",
    "TELEMQ_ENGINE": "engine",
    "TELEMQ_BROKER_PULL": "broker.pull",
    "TELEMQ_BROKER_PUSH": "broker.push",
    "TELEMQ_BROKER_HTTP": "broker.http",
    "TELEMQ_BROKER_HTTP_TOKEN": "broker.http.tokenSecret",
    "TELEMQ_BROKER_PRODUCER_BIND": "broker.ports.producers",
    "TELEMQ_BROKER_CONSUMER_BIND": "broker.ports.consumers",
    "TELEMQ_BROKER_OPS_ADDRESS": "broker.ports.ops",
    "TELEMQ_BROKER_KEYS": "broker.keys.enabled",
    "TELEMQ_BROKER_CAPACITY_RECORDS": "broker.queueCapacity",
    "TELEMQ_BROKER_CAPACITY_BYTES": "broker.queueBytes",
    "TELEMQ_BROKER_DRAIN_S": "broker.drainSeconds",
    "TELEMQ_BROKER_JOURNAL": "broker.journal.enabled",
    "TELEMQ_STREAMER_BROKER": "streamer.brokers",
    "TELEMQ_STREAMER_KEY": "broker.keys.existingSecrets.streamer",
    "TELEMQ_STREAMER_BROKER_KEY": "broker.keys.existingSecrets.streamer",
    "TELEMQ_STREAMER_OPS_ADDRESS": "streamer.ports.ops",
    "TELEMQ_STREAMER_RATE": "streamer.rate",
    "TELEMQ_STREAMER_DRAIN_S": "streamer.drainSeconds",
    "TELEMQ_COLLECTOR_BROKER": "collector.brokers",
    "TELEMQ_COLLECTOR_KEY": "broker.keys.existingSecrets.collector",
    "TELEMQ_COLLECTOR_BROKER_KEY": "broker.keys.existingSecrets.collector",
    "TELEMQ_COLLECTOR_OPS_ADDRESS": "collector.ports.ops",
    "TELEMQ_COLLECTOR_WORKERS": "collector.workers",
    "TELEMQ_COLLECTOR_DRAIN_S": "collector.drainSeconds",
    "TELEMQ_API_ADDRESS": "api.ports.http",
    "TELEMQ_API_OPS_ADDRESS": "api.ports.ops",
    "TELEMQ_API_TOKENS": "api.tokens.enabled",
    "TELEMQ_API_DRAIN_S": "api.drainSeconds",
    "TELEMQ_API_BROKER_OPS": "api.brokerOps",
    "TELEMQ_MIGRATE_WAIT_S": "migrate.waitSeconds",
    "TELEMQ_KEYS_WAIT_S": "broker.keys.waitSeconds",
}


def helm_value(component: str, name: str, variable: str) -> str:
    """Give the chart's value that sets a setting, such as ``broker.settings.leaseS``.

    Empty for what the chart sets by itself, and for what does not run in a cluster.

    Args:
        component: of the setting; empty for what several share.
        name: of the setting.
        variable: its environment variable.
    """
    if component not in CHART_COMPONENTS or variable in CHART_SETS:
        return ""
    if variable in STRUCTURED:
        return STRUCTURED[variable]
    first, *rest = name.rstrip("_").split("_")
    return ".".join([*filter(None, [component]), "settings", first + "".join(map(str.title, rest))])
