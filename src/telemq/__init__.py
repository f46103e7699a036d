"""GPU telemetry from many hosts into Postgres, every record exactly once.

The library behind the ``telemq`` command. ARCHITECTURE.md is the map.
"""

from importlib.metadata import version

__version__ = version("telemq")

__all__ = ["__version__"]
