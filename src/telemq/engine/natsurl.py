"""The value of ``--engine`` for JetStream: ``nats://[user:password@]host[:port],host/STREAM``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from telemq.errors import SettingError

__all__ = ["NatsUrl"]

_PORT = 4222
_URL = re.compile(r"(nats|tls)://(?:([^@/]*)@)?([^@/]+)/([A-Za-z0-9_-]{1,64})")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """Servers of one cluster, and a stream.

    Attributes:
        servers: a URL each, without a secret.
        stream: name of the stream.
        user: empty for none; never shown.
        password: empty for none; never shown.
    """

    servers: tuple[str, ...]
    stream: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> NatsUrl:
        """Take the value apart.

        Raises:
            SettingError: it is malformed; the error does not hold it.
        """
        found = _URL.fullmatch(text)
        hosts = [_HOST.fullmatch(host) for host in found[3].split(",")] if found else [None]
        if found is None or not all(hosts):
            accepted = "such as nats://host,host:4222/STREAM, the stream of letters, digits, _ or -"
            raise SettingError("--engine", "(secret)", accepted)
        user, _, password = (found[2] or "").partition(":")
        return cls(
            tuple(f"{found[1]}://{host[1]}:{host[2] or _PORT}" for host in hosts if host),
            found[4],
            unquote(user),
            unquote(password),
        )

    @property
    def shown(self) -> str:
        """What may be logged."""
        scheme = self.servers[0].partition("://")[0]
        hosts = ",".join(server.partition("://")[2] for server in self.servers)
        return f"{scheme}://{hosts}/{self.stream}"

    @property
    def subjects(self) -> str:
        """All subjects of the stream."""
        return f"telemq.{self.stream}.*"

    @property
    def messages(self) -> str:
        """The subject of messages."""
        return f"telemq.{self.stream}.message"

    @property
    def dead(self) -> str:
        """The subject of dead letters."""
        return f"telemq.{self.stream}.dead"
