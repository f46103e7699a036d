"""The database that is there, for commands that look into it and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telemq.errors import SettingError, StoreError
from telemq.settings import StoreSettings

if TYPE_CHECKING:
    import psycopg

__all__ = ["existing_database", "open_database"]


@contextmanager
def existing_database(settings: StoreSettings) -> Iterator[str]:
    """Yield the DSN of the settings' database; only what matters is logged meanwhile.

    Raises:
        SettingError: there is none.
        EmbeddedError: it is embedded, and cannot be started.
    """
    from telemq import log
    from telemq.store.embedded import database, default_data_dir

    log.configure("warning" if settings.log_level == "info" else settings.log_level)
    data_dir = Path(settings.data_dir or default_data_dir()).expanduser()
    if not settings.dsn and not (data_dir / "postgres").is_dir():
        raise SettingError("--data-dir", str(data_dir), "a directory with a database, or see --dsn")
    with database(settings.dsn, settings.data_dir) as dsn:
        yield dsn


@contextmanager
def open_database(settings: StoreSettings, what: str) -> Iterator[psycopg.Connection[Any]]:
    """Open the database that is there; makes none.

    Args:
        settings: say which.
        what: is looked for, in the plural.

    Raises:
        SettingError: there is none.
        StoreError: it is not telemq's, or older than this version.
    """
    import psycopg

    with existing_database(settings) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        try:
            yield conn
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise StoreError(
                f"the database has no {what} of this version: "
                f"{error.diag.message_primary}; telemq migrate brings it up to date"
            ) from error
