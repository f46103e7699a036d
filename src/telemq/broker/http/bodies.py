"""What travels in HTTP bodies: the message as JSON, in and out.

A payload is bytes to the broker. In JSON it is any value, whose text is the payload, or a string,
whose UTF-8 is. On the way out `payload_form` tells which it was, and ``base64`` stands for bytes
that are neither.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import orjson
from msgspec import Meta

from telemq.broker.http.door import Outcome
from telemq.client.session import Delivery
from telemq.errors import RecordError
from telemq.protocol import CONTROL_BYTES_MAX, INTEGER_MAX, Publish, encode

__all__ = [
    "ConsumedBody",
    "PublishBody",
    "PublishedBody",
    "SettleBody",
    "SettledBody",
    "consumed",
    "payload_of",
    "read_publish",
    "read_settle",
    "schemas",
]

T = TypeVar("T")

#: Content types of payloads that do not name theirs.
_RECORD, _TEXT = "telemq.record", "text/plain"
#: What DELIVER adds to a message's header, at most.
_DELIVER_BYTES = 2048

_Text512 = Annotated[str, Meta(max_length=512)]


class PublishBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A message to be queued."""

    payload: msgspec.Raw
    id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=512,
            description="The message's identity, `stream#first_row`, the same each time it is "
            "published: it is not queued twice and not stored twice. Left out, the broker gives "
            "one, and a repeated request is another message.",
            examples=["host-1/dcgm#42"],
        ),
    ] = ""
    key: Annotated[str, Meta(max_length=512, description="For consumers.")] = ""
    metadata: Annotated[
        dict[_Text512, _Text512],
        Meta(
            description="For consumers. `content-type` says what the payload is; left out, "
            f"it is `{_TEXT}` for a string and `{_RECORD}` for anything else.",
            examples=[{"content-type": _RECORD}],
        ),
    ] = {}
    records: Annotated[
        int,
        Meta(
            ge=0,
            le=INTEGER_MAX,
            description="How many records the message counts; 0 or left out counts the elements "
            f"of an array of `{_RECORD}`, and 1 for anything else.",
            examples=[1],
        ),
    ] = 0


class PublishedBody(msgspec.Struct, kw_only=True):
    """What became of a message."""

    id: Annotated[str, Meta(description="Its identity.", examples=["http/5f2c9a01d3b7#0"])]
    stored: Annotated[
        bool,
        Meta(
            description="It is confirmed: stored, or kept as a dead letter; else it is queued.",
            examples=[False],
        ),
    ]


class ConsumedBody(msgspec.Struct, kw_only=True):
    """A message that is lent to the client."""

    id: Annotated[str, Meta(description="Its identity.", examples=["http/5f2c9a01d3b7#0"])]
    key: Annotated[str, Meta(description="As published.", examples=[""])]
    metadata: Annotated[
        dict[str, str], Meta(description="As published.", examples=[{"content-type": _RECORD}])
    ]
    records: Annotated[int, Meta(ge=1, description="How many it counts.", examples=[1])]
    attempt: Annotated[int, Meta(ge=1, description="1 at first delivery.", examples=[1])]
    dead: Annotated[
        str,
        Meta(
            description="Empty, or why this is a dead letter: keep it, do not process it.",
            examples=[""],
        ),
    ]
    lease: Annotated[
        str,
        Meta(
            description="Names it in `POST /settle`; empty with `ack=auto`.",
            examples=["6d0f2be6ba6b2e6f.7"],
        ),
    ]
    lease_ms: Annotated[
        int,
        Meta(
            ge=0,
            description="How long it is lent, in milliseconds; then another gets it. 0 with "
            "`ack=auto`.",
            examples=[30000],
        ),
    ]
    payload_form: Annotated[
        Literal["json", "text", "base64"],
        Meta(description="How the payload is shown.", examples=["json"]),
    ]
    payload: Any


class SettleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What became of a message that was lent."""

    lease: Annotated[
        str,
        Meta(max_length=100, description="As `/consume` gave it.", examples=["6d0f2be6ba6b2e6f.7"]),
    ]
    outcome: Annotated[
        Outcome,
        Meta(
            description="`ok`: it is stored; `retry`: back to the head of the queue; `bury`: it "
            "cannot be processed and becomes a dead letter.",
            examples=["ok"],
        ),
    ] = "ok"
    reason: Annotated[
        str, Meta(max_length=1000, description="For `bury`.", examples=["no such metric"])
    ] = ""


class SettledBody(msgspec.Struct, kw_only=True):
    """The lease was live, and is settled."""

    outcome: Annotated[Outcome, Meta(description="As asked.", examples=["ok"])]


_publish = msgspec.json.Decoder(PublishBody)
_settle = msgspec.json.Decoder(SettleBody)
_elements = msgspec.json.Decoder(list[msgspec.Raw])
#: What decoding raises. A thousand nested brackets are a RecursionError, not a MsgspecError.
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_publish(body: bytes) -> PublishBody:
    """Read the body of a request to publish.

    Raises:
        RecordError: it is not JSON of that kind; the text names the field and what it must be.
    """
    return _decoded(_publish, body)


def read_settle(body: bytes) -> SettleBody:
    """Read the body of a request to settle.

    Raises:
        RecordError: it is not JSON of that kind; the text names the field and what it must be.
    """
    return _decoded(_settle, body)


def payload_of(body: PublishBody) -> tuple[bytes, int, dict[str, str]]:
    """Give a message's payload, its count of records and its metadata.

    Raises:
        RecordError: the message cannot be counted, or its header is too large.
    """
    text = bytes(body.payload)
    is_text = text[:1] == b'"'
    content_type = body.metadata.get("content-type") or (_TEXT if is_text else _RECORD)
    metadata = {**body.metadata, "content-type": content_type}
    try:
        payload = msgspec.json.decode(text, type=str).encode() if is_text else text
        records = body.records
        if not records and text[:1] == b"[" and content_type == _RECORD:
            records = len(_elements.decode(text))
            if not records:
                raise RecordError("the payload is an empty array: it holds no record")
    except (*_DECODE_ERRORS, UnicodeEncodeError) as error:
        raise RecordError(f"the payload is not accepted: {error}") from error
    records = records or 1
    header = len(encode(Publish("", INTEGER_MAX, body.id or "-", records, body.key, metadata)))
    if header > CONTROL_BYTES_MAX - _DELIVER_BYTES:
        raise RecordError(
            f"id, key and metadata have {header} bytes; "
            f"{CONTROL_BYTES_MAX - _DELIVER_BYTES} are accepted"
        )
    return payload, records, metadata


def consumed(delivery: Delivery, lease: str) -> bytes:
    """Give the body for a delivery; with an empty lease, one that needs no settling."""
    form, payload = _shown(bytes(delivery.payload), delivery.metadata.get("content-type", ""))
    return msgspec.json.encode(
        ConsumedBody(
            id=delivery.id,
            key=delivery.key,
            metadata=delivery.metadata,
            records=delivery.records,
            attempt=delivery.attempt,
            dead=delivery.dead,
            lease=lease,
            lease_ms=delivery.lease_ms if lease else 0,
            payload_form=form,
            payload=payload,
        )
    )


def schemas() -> dict[str, Any]:
    """Give the JSON schemas of the bodies that come in, by name."""
    _, components = msgspec.json.schema_components(
        [PublishBody, SettleBody], ref_template="#/components/schemas/{name}"
    )
    components["PublishBody"]["properties"]["payload"] = {
        "description": "Any JSON value: its text is the payload; of a string, the string itself.",
        "examples": [
            {
                "timestamp": "2025-07-18T20:42:34Z",
                "metric_name": "DCGM_FI_DEV_GPU_UTIL",
                "uuid": "GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8",
                "value": 97,
            }
        ],
    }
    return components


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except _DECODE_ERRORS as error:
        raise RecordError(f"the body is not accepted: {error}") from error


def _shown(
    payload: bytes, content_type: str
) -> tuple[Literal["json", "text", "base64"], msgspec.Raw | str]:
    if not content_type.startswith("text/"):
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            pass
        else:
            return "json", msgspec.Raw(payload)
    try:
        return "text", payload.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(payload).decode()
