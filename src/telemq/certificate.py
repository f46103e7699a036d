"""The format of key files, ZeroMQ's certificate (ZPL), and writing them safely.

::

    metadata
        name = "node-7"
        role = "producer"
    curve
        public-key = "40 characters of Z85"
        secret-key = "40 characters of Z85"          only in the secret file

`zmq.auth.load_certificate` and other languages' bindings read it.
`zmq.auth.create_certificates` is not used for writing: the secret file that it makes is readable
for everybody first, and a reader may see half of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
from pathlib import Path

from zmq.utils import z85

from telemq.errors import SettingError

__all__ = ["PUBLIC", "SECRET", "certificate", "check_name", "is_key", "parse", "read", "write"]

#: What the names of public and secret files end in.
PUBLIC, SECRET = ".key", ".key_secret"
#: A name becomes a file name, a ZAP user id and a word in logs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_WORDS = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
#: A certificate has some 500 bytes; who puts a large file there does not get it read.
_FILE_BYTES_MAX = 4096
_LINE = re.compile(r'\s*([a-z-]+)\s*=\s*"([^"]*)"\s*')


def is_key(text: bytes) -> bool:
    """Tell whether this is a key: 32 bytes in Z85."""
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, ValueError, struct.error):
        return False


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in file names and logs.

    Raises:
        SettingError: with what is accepted.
    """
    if not _NAME.fullmatch(name):
        raise SettingError("NAME", name, _NAME_WORDS)


def certificate(name: str, role: str, public: bytes, secret: bytes = b"") -> str:
    """Give the text of a certificate; of a secret one when there is a secret key."""
    kind = "SECRET certificate: do not copy it" if secret else "public certificate"
    lines = [
        f"#   ZeroMQ CURVE {kind}",
        "metadata",
        f'    name = "{name}"',
        f'    role = "{role}"',
        "curve",
        f'    public-key = "{public.decode()}"',
    ]
    if secret:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"


def read(path: Path, flag: str, accepted: str) -> dict[str, bytes]:
    """Read the entries of a certificate, whatever their sections.

    Raises:
        SettingError: it cannot be read or has no public key; nothing of its content is told.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise SettingError(flag, str(path), f"a file that can be read: {why}") from None
    entries = parse(content)
    if "public-key" not in entries:
        raise SettingError(flag, str(path), accepted)
    return entries


def parse(content: bytes) -> dict[str, bytes]:
    """Give the entries of a certificate, whatever their sections; of what is none, none."""
    text = content.decode(errors="replace") if len(content) <= _FILE_BYTES_MAX else ""
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2].encode() for match in found if match}


def write(path: Path, content: str, mode: int, *, replace: bool = False) -> bool:
    """Write a file whole or not at all, never wider open than `mode`.

    Gives False, and does nothing, when it is there already and not to be replaced.

    Raises:
        OSError: the directory cannot be written.
    """
    # mkstemp makes it 0600 from its first moment.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
        if replace:
            os.replace(beside, path)
            return True
        try:
            os.link(beside, path)  # unlike a rename, it never overwrites
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
