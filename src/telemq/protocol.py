"""The wire protocol, version 1: every message, its limits, and how it is encoded.

docs/protocol.md is the specification; the names and the order of the fields here are those there.

::

    frame 0   ["PUBLISH", session, number, id, records, key, metadata]      control, JSON
    frame 1   payload                                                       PUBLISH, DELIVER, PACK
    ...       payload                                                       PACK

A PACK is several PUBLISHes, or several DELIVERs, in one: messages cost a broker less by the
dozen. It takes as many numbers as it has messages, so everything else is as if they came singly.
Both kinds list the messages alike, so that a broker hands on what it has read.

Every message is a JSON array whose first element is its type, so decoding checks each field's kind
and range in one pass, in C.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from telemq.errors import RemoteProtocolError

__all__ = [
    "CONTROL_BYTES_MAX",
    "FINAL_ERRORS",
    "INTEGER_MAX",
    "JOIN_BYTES",
    "LEASES_MAX",
    "PACK_BYTES_MAX",
    "PACK_CONTROL_BYTES_MAX",
    "PACK_MESSAGES_MAX",
    "PUBLISH_BYTES_MAX",
    "SILENT_BEATS",
    "VERSION",
    "Bye",
    "Confirm",
    "Credit",
    "Deliver",
    "DeliverPack",
    "Error",
    "Frames",
    "FromBroker",
    "FromPeer",
    "Grant",
    "Hello",
    "Lent",
    "Packed",
    "Payload",
    "Ping",
    "Publish",
    "PublishPack",
    "Renew",
    "Return",
    "Role",
    "Settle",
    "Settlement",
    "Want",
    "Welcome",
    "decode_from_broker",
    "decode_from_peer",
    "encode",
    "speaks_packs",
]

VERSION = "1.1"
#: Greatest integer on the wire: the greatest that every JSON implementation holds exactly.
INTEGER_MAX = 2**53 - 1
#: Longest control frame.
CONTROL_BYTES_MAX = 65_536
#: Longest control frame of a PUBLISH: what is in it must fit into that of DELIVER, with the reason
#: why it is dead, however it is escaped there.
PUBLISH_BYTES_MAX = 16_384
#: Most messages of a PACK, and bytes of their payloads together.
PACK_MESSAGES_MAX, PACK_BYTES_MAX = 1000, 1_048_576
#: A larger payload in a PACK has a frame of its own, unless WELCOME says something else.
JOIN_BYTES = 65_536
#: Longest control frame of a producer's PACK: what a consumer's has beside the messages must fit.
PACK_CONTROL_BYTES_MAX = 65_000
#: Most leases in one SETTLE or RENEW, those of ranges counted singly: what one frame may cost.
LEASES_MAX = 65_536
#: A side that was silent for this many heartbeats is lost.
SILENT_BEATS = 5
#: After one of these it makes no sense to say HELLO again without changing something.
FINAL_ERRORS = frozenset({"version", "role", "denied"})

#: What a message carries. The broker only measures it.
Payload = bytes | memoryview
#: The payload frames of a message: one, but of a PACK as many as its sender likes.
Frames = tuple[Payload, ...]

_Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
_Positive = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
_Id = Annotated[str, Meta(min_length=1, max_length=512)]
_Key = Annotated[str, Meta(max_length=512)]
_Reason = Annotated[str, Meta(max_length=1000)]
Role = Literal["producer", "consumer"]


class _Message(msgspec.Struct, array_like=True, frozen=True, tag=lambda name: name.upper()):
    session: str
    number: _Count


class Hello(_Message, frozen=True):
    """A peer asks for a session; session is empty and number 0."""

    version: Annotated[str, Meta(max_length=16)]
    role: Role
    name: Annotated[str, Meta(max_length=200)]


class Welcome(_Message, frozen=True):
    """The broker opens a session; its number is 1."""

    version: str
    heartbeat_ms: _Positive
    message_records_max: _Positive
    message_bytes_max: _Positive
    join_bytes: _Count = JOIN_BYTES


class Ping(_Message, frozen=True):
    """Either side is alive and has nothing else to say."""


class Bye(_Message, frozen=True):
    """Either side ends the session on purpose."""


class Error(_Message, frozen=True):
    """The broker ended the session, or there was none."""

    code: str
    detail: str


class Want(_Message, frozen=True):
    """A producer's standing wish for credit; replaces the one before."""

    least_records: _Count
    least_bytes: _Count
    most_records: _Count
    most_bytes: _Count


class Grant(_Message, frozen=True):
    """The broker gives a producer this much more credit."""

    records: _Count
    bytes: _Count


class Return(_Message, frozen=True):
    """A producer gives back unspent credit."""

    records: _Count
    bytes: _Count


class Publish(_Message, frozen=True):
    """A producer hands over one message; the payload is the next frame."""

    id: _Id
    records: _Positive
    key: _Key
    metadata: dict[_Key, _Key]


class Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message of a PACK; `bytes` is its payload's length."""

    id: _Id
    records: _Positive
    bytes: Annotated[int, Meta(ge=0, le=PACK_BYTES_MAX)]
    key: _Key
    metadata: dict[_Key, _Key]


class PublishPack(_Message, frozen=True, tag="PACK"):
    """PUBLISHes numbered from `number` on; the next frames are their payloads, end to end."""

    messages: Annotated[tuple[Packed, ...], Meta(min_length=1, max_length=PACK_MESSAGES_MAX)]


class Confirm(_Message, frozen=True):
    """The PUBLISHes with these numbers are safe, and as many as `counts` says from each one on."""

    numbers: tuple[_Positive, ...]
    counts: tuple[_Positive, ...] = ()


class Credit(_Message, frozen=True):
    """A consumer accepts at most this much delivered and not settled."""

    records: _Count
    bytes: _Count


class Deliver(_Message, frozen=True):
    """The broker lends one message to a consumer; the payload is the next frame."""

    lease: _Positive
    lease_ms: _Positive
    attempt: _Positive
    id: _Id
    records: _Positive
    key: _Key
    metadata: dict[_Key, _Key]
    dead: _Reason


class Lent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The next `count` messages of a `DeliverPack`: their leases are numbered from `lease` on."""

    lease: _Positive
    count: _Positive
    attempt: _Positive


class DeliverPack(_Message, frozen=True, tag="PACK"):
    """DELIVERs numbered from `number` on; the next frames are their payloads, end to end."""

    lease_ms: _Positive
    lent: tuple[Lent, ...]
    messages: Annotated[tuple[Packed, ...], Meta(min_length=1, max_length=PACK_MESSAGES_MAX)]


class Settlement(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True):
    """What became of one lease, or of several numbered from `lease` on."""

    lease: _Positive
    outcome: Literal["ok", "retry", "bury"]
    reason: _Reason = ""
    count: _Positive = 1


class Settle(_Message, frozen=True):
    """A consumer is done with these leases."""

    settlements: tuple[Settlement, ...]


class Renew(_Message, frozen=True):
    """A consumer still works on these leases, and as many as `counts` says from each one on."""

    leases: tuple[_Positive, ...]
    counts: tuple[_Positive, ...] = ()


FromPeer = Hello | Ping | Bye | Want | Return | Publish | PublishPack | Credit | Settle | Renew
FromBroker = Welcome | Ping | Bye | Error | Grant | Confirm | Deliver | DeliverPack

_from_peer: msgspec.json.Decoder[FromPeer] = msgspec.json.Decoder(FromPeer)
_from_broker: msgspec.json.Decoder[FromBroker] = msgspec.json.Decoder(FromBroker)
_encoder = msgspec.json.Encoder()
#: What decoding raises. A thousand nested brackets are a RecursionError, not a MsgspecError.
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: The control frame of a message.
encode = _encoder.encode


def decode_from_peer(frame: bytes | memoryview) -> FromPeer:
    """Read a control frame that a peer sent.

    Raises:
        RemoteProtocolError: ``bad_message``; the detail names the field and what it must be.
    """
    if len(frame) > CONTROL_BYTES_MAX:
        raise RemoteProtocolError("bad_message", f"control frame over {CONTROL_BYTES_MAX} bytes")
    try:
        message = _from_peer.decode(frame)
    except _DECODE_ERRORS as error:
        raise RemoteProtocolError("bad_message", str(error)) from error
    if len(frame) > PUBLISH_BYTES_MAX:
        _check_labels(message, len(frame))
    return message


def decode_from_broker(frame: bytes | memoryview) -> FromBroker:
    """Read a control frame that the broker sent.

    Raises:
        RemoteProtocolError: ``bad_message``; the detail names the field and what it must be.
    """
    try:
        return _from_broker.decode(frame)
    except _DECODE_ERRORS as error:
        raise RemoteProtocolError("bad_message", str(error)) from error


def speaks_packs(version: str) -> bool:
    """Tell whether whoever speaks this version takes a PACK: 1.1 and later do."""
    _, _, minor = version.partition(".")
    return minor.isdigit() and int(minor) >= 1


def _check_labels(message: FromPeer, frame_bytes: int) -> None:
    """Refuse messages whose labels would not fit into a DELIVER, or into a PACK of DELIVERs."""
    if isinstance(message, PublishPack):
        if frame_bytes > PACK_CONTROL_BYTES_MAX:
            detail = f"control frame of PACK over {PACK_CONTROL_BYTES_MAX} bytes: pack less"
            raise RemoteProtocolError("bad_message", detail)
        # Only metadata can be that long.
        lines = [len(encode(packed)) for packed in message.messages if packed.metadata]
        frame_bytes = max(lines, default=0)
    elif not isinstance(message, Publish):
        return
    if frame_bytes > PUBLISH_BYTES_MAX:
        detail = f"control frame of PUBLISH over {PUBLISH_BYTES_MAX} bytes: id, key and metadata"
        raise RemoteProtocolError("bad_message", detail)
