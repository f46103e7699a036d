"""Endpoints of brokers, and following the DNS names among them.

A headless Kubernetes service is one name with the address of every broker behind it, and they come
and go. A thread asks every some seconds, since a resolver may take as long as it likes; the owner
of the links reads the latest answer. What cannot be resolved now keeps its last answer.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence

from telemq import log
from telemq.errors import SettingError

__all__ = ["Endpoints", "Resolver", "addresses", "endpoints_of", "is_followed"]

#: Gives the numeric addresses of a host name; raises OSError when it cannot.
Resolver = Callable[[str], Sequence[str]]

_NAMED = re.compile(r"tcp://([^\[\]/:*]+):([0-9]{1,5})")
_ACCEPTED = "ZeroMQ endpoints, comma-separated, such as tcp://127.0.0.1:5601,tcp://10.0.0.2:5601"


def endpoints_of(text: str) -> tuple[str, ...]:
    """Split the value of ``--broker``.

    Raises:
        SettingError: there is none, or one twice.
    """
    endpoints = tuple(part.strip() for part in text.split(","))
    if not all(endpoints) or len(set(endpoints)) < len(endpoints):
        raise SettingError("--broker", text, _ACCEPTED + ", each once")
    return endpoints


def is_followed(endpoint: str) -> bool:
    """Tell whether an endpoint has a DNS name, which may mean other addresses tomorrow."""
    named = _NAMED.fullmatch(endpoint)
    if named is None:
        return False
    try:
        ipaddress.ip_address(named[1])
    except ValueError:
        return True
    return False


def addresses(host: str) -> list[str]:
    """Resolve a host name: its IPv4 addresses, or its IPv6 addresses if it has no others.

    A host with both is one broker; to connect to both would count it twice.

    Raises:
        OSError: it cannot be resolved.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    four = sorted({str(info[4][0]) for info in found if info[0] == socket.AF_INET})
    return four or sorted({f"[{info[4][0]}]" for info in found if info[0] == socket.AF_INET6})


class Endpoints:
    """The endpoints of now, with every DNS name replaced by its addresses.

    Args:
        endpoints: as given.
        every_s: seconds between two looks.
        on_change: called from the thread when `current` has changed.
        resolve: asks for one host name.

    Attributes:
        current: replaced as a whole; empty until the first answer if all have names.
        fault: why the last look found nothing, or empty.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        every_s: float,
        on_change: Callable[[], None],
        resolve: Resolver = addresses,
    ) -> None:
        self._endpoints = endpoints
        self._every_s = every_s
        self._on_change = on_change
        self._resolve = resolve
        self._answers: dict[str, Sequence[str]] = {}
        self._closing = threading.Event()
        self.fault = ""
        self.current: tuple[str, ...] = tuple(e for e in endpoints if not is_followed(e))
        if len(self.current) < len(endpoints):
            # A daemon: getaddrinfo cannot be cancelled, and must not hold up the end.
            threading.Thread(target=self._follow, name="resolver", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _follow(self) -> None:
        while not self._closing.is_set():
            found = tuple(dict.fromkeys(e for one in self._endpoints for e in self._look(one)))
            if found != self.current:
                log.get().info("brokers resolved", brokers=", ".join(found))
                self.current = found
                self._on_change()
            self._closing.wait(self._every_s)

    def _look(self, endpoint: str) -> Sequence[str]:
        if not is_followed(endpoint):
            return [endpoint]
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        try:
            self._answers[endpoint] = [f"tcp://{a}:{port}" for a in self._resolve(host)]
            self.fault = ""
        except OSError as error:
            fault = f"{host} cannot be resolved: {error.strerror or error}"
            if fault != self.fault:
                log.get().warning("broker not resolved", host=host, reason=fault)
            self.fault = fault
        return self._answers.get(endpoint, ())
