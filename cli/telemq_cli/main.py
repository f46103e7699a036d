"""The command ``telemq``: each command parses its flags, calls one service, renders its result."""

from telemq_cli.app import app

# Commands are listed in the order in which they are imported.
# isort: split
from telemq_cli import services

# isort: split
from telemq_cli import reports

# isort: split
from telemq_cli import journal

# isort: split
from telemq_cli import keys

# isort: split
from telemq_cli import tokens

# isort: split
from telemq_cli import top

# isort: split
from telemq_cli import gpus

# isort: split
from telemq_cli import query

# isort: split
from telemq_cli import health

# isort: split
from telemq_cli import dead

# isort: split
from telemq_cli import sizing

# isort: split
from telemq_cli import bench

__all__ = [
    "app",
    "bench",
    "dead",
    "gpus",
    "health",
    "journal",
    "keys",
    "query",
    "reports",
    "services",
    "sizing",
    "tokens",
    "top",
]
