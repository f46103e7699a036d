"""Asking services whether they are well: the other side of their ops addresses.

It imports nothing that is slow to import, since containers are asked every few seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from telemq.errors import SettingError

__all__ = ["ADDRESS", "Answer", "ask", "ops_url"]

#: How an ops address is written.
ADDRESS = "http://host:port"
#: A reason is one sentence; whoever sends more is no service of ours.
_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said, or why it said nothing.

    Attributes:
        url: as it was asked.
        well: it answered 200.
        text: its answer's first line, or what went wrong; from outside, so not fit for a terminal.
        refused: nobody listens there.
    """

    url: str
    well: bool
    text: str
    refused: bool = False


def ops_url(flag: str, word: str, accepted: str = ADDRESS) -> str:
    """Give an ops address as ``http://host:port``; the scheme may be left out.

    Raises:
        SettingError: `word` is not of that form.
    """
    try:
        parts = urlsplit(word if "://" in word else f"http://{word}")
        port = parts.port
    except ValueError:
        raise SettingError(flag, word, accepted) from None
    odd = parts.username or parts.query or parts.fragment or parts.path not in ("", "/")
    if parts.scheme != "http" or not parts.hostname or port is None or odd:
        raise SettingError(flag, word, accepted)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"http://{host}:{port}"


def ask(urls: Sequence[str], path: str, wait_s: float) -> list[Answer]:
    """Ask services all at once; gives their answers in the same order, after `wait_s` at most."""
    answers: dict[str, Answer] = {}

    def get(url: str) -> None:
        answers[url] = _get(url, path, wait_s)

    until = time.monotonic() + wait_s
    # Threads, not socket limits alone: looking up a name has no limit, nor has a trickle of bytes.
    threads = [threading.Thread(target=get, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = f"no answer within {wait_s:g} s"
    return [answers.get(url) or Answer(url, well=False, text=late) for url in urls]


def _get(url: str, path: str, wait_s: float) -> Answer:
    try:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=wait_s)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_BYTES_MAX)
    except ConnectionRefusedError:
        return Answer(url, well=False, text="nothing listens there", refused=True)
    except TimeoutError:
        return Answer(url, well=False, text=f"no answer within {wait_s:g} s")
    except http.client.HTTPException:
        return Answer(url, well=False, text="its answer is not HTTP")
    except OSError as error:
        return Answer(url, well=False, text=(error.strerror or str(error)).lower())
    text = _told(body, answer.headers.get_content_type())
    if answer.status == 200:
        return Answer(url, well=True, text=text)
    return Answer(url, well=False, text=f"it answered {answer.status}: {text}")


def _told(body: bytes, media_type: str) -> str:
    """Give an answer's text: of a gateway's problem document, what it tells in detail."""
    if media_type == "application/problem+json":
        with contextlib.suppress(ValueError, LookupError, TypeError):
            body = str(json.loads(body)["detail"]).encode()
    return body.decode(errors="replace").strip().partition("\n")[0]
