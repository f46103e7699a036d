"""Postgres: the schema, what writes and reads it, and the embedded server.

Import the modules, not the package: `migrate`, `embedded` and the rest load psycopg when they are
imported; this package alone does not, so that a command line stays quick.
"""

__all__: list[str] = []
