"""Reading the status documents of several brokers at once."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from telemq.broker.stats import BrokerStatus
from telemq.errors import SettingError
from telemq.probe import ADDRESS, ops_url

__all__ = ["BROKERS_MAX", "Reading", "parse_urls", "read_all"]

#: Most brokers in one view: each costs a thread while it is read.
BROKERS_MAX = 64
#: A document of 8,192 peers has 3 MB.
_BYTES_MAX = 32 * 2**20
_CHUNK_BYTES = 65_536
_ACCEPTED = f"{ADDRESS}, or several of these separated by commas"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one broker answered.

    Attributes:
        url: ``http://host:port``.
        status: what it told; None if it could not be read.
        fault: why not, in words; else empty.
    """

    url: str
    status: BrokerStatus | None
    fault: str = ""


def parse_urls(text: str, flag: str = "--broker") -> list[str]:
    """Give each of some brokers once, as ``http://host:port``.

    Args:
        text: their ops addresses, comma-separated.
        flag: the setting, for the error.

    Raises:
        SettingError: one of them is not of that form, or there are too many.
    """
    urls: dict[str, None] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        urls[ops_url(flag, word, _ACCEPTED)] = None
    if not 1 <= len(urls) <= BROKERS_MAX:
        raise SettingError(flag, text, f"{_ACCEPTED}; at most {BROKERS_MAX}")
    return list(urls)


def read_all(urls: Sequence[str], wait_s: float) -> list[Reading]:
    """Read every broker, each for `wait_s` at most; one that does not answer holds up no other."""
    with ThreadPoolExecutor(len(urls), "reader") as pool:
        return list(pool.map(lambda url: _read(url, wait_s), urls))


def _read(url: str, wait_s: float) -> Reading:
    try:
        return Reading(url, _get(url, wait_s))
    except TimeoutError:
        return Reading(url, None, f"no answer within {wait_s:g} s")
    except http.client.HTTPException as error:
        return Reading(url, None, str(error) or "its answer is not HTTP")
    except OSError as error:
        return Reading(url, None, (error.strerror or str(error)).lower())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Reading(url, None, f"its answer is not of a broker of this version: {error}")


def _get(url: str, wait_s: float) -> BrokerStatus:
    until = time.monotonic() + wait_s
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=wait_s)
    with contextlib.closing(connection):
        connection.request("GET", "/status.json")
        answer = connection.getresponse()
        body = bytearray()
        while chunk := answer.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > _BYTES_MAX:
                raise http.client.HTTPException(f"its answer is longer than {_BYTES_MAX} bytes")
            # The socket's own limit is for each piece: a trickle would never meet it.
            if time.monotonic() > until:
                raise TimeoutError
    if answer.status != 200:
        told = bytes(body[:200]).decode(errors="replace").strip().partition("\n")[0]
        raise http.client.HTTPException(f"it answered {answer.status}: {told}")
    return msgspec.json.decode(body, type=BrokerStatus)
