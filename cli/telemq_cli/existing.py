"""The database that is there, for commands that ask it something and make none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from telemq.errors import SettingError
from telemq.settings import StoreSettings

__all__ = ["existing_database"]


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
