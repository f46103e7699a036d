"""The wire protocol: every message both ways, every limit, and its agreement with the document."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.errors import RemoteProtocolError
from telemq.protocol import (
    CONTROL_BYTES_MAX,
    FINAL_ERRORS,
    INTEGER_MAX,
    LEASES_MAX,
    PACK_BYTES_MAX,
    PACK_CONTROL_BYTES_MAX,
    PACK_MESSAGES_MAX,
    PUBLISH_BYTES_MAX,
    SILENT_BEATS,
    VERSION,
    Bye,
    Confirm,
    Credit,
    Deliver,
    DeliverPack,
    Error,
    FromBroker,
    FromPeer,
    Grant,
    Hello,
    Lent,
    Packed,
    Ping,
    Publish,
    PublishPack,
    Renew,
    Return,
    Settle,
    Settlement,
    Want,
    Welcome,
    decode_from_broker,
    decode_from_peer,
    encode,
    speaks_packs,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

# ---- round trips -------------------------------------------------------------------------------

text = st.text(max_size=50)
count = st.integers(0, INTEGER_MAX)
positive = st.integers(1, INTEGER_MAX)
name = st.text(min_size=1, max_size=512)
metadata = st.dictionaries(text, text, max_size=4)
settlements = st.lists(
    st.builds(Settlement, positive, st.sampled_from(["ok", "retry", "bury"]), text, positive),
    max_size=5,
).map(tuple)
small = st.integers(0, PACK_BYTES_MAX)
packed = st.lists(
    st.builds(Packed, name, positive, small, text, metadata), min_size=1, max_size=4
).map(tuple)
numbers = st.lists(positive, max_size=5).map(tuple)
either = [st.builds(Ping, text, count), st.builds(Bye, text, count)]
from_peer = st.one_of(
    *either,
    st.builds(Hello, text, count, st.text(max_size=16), st.sampled_from(["producer", "consumer"])
              , text),
    st.builds(Want, text, count, count, count, count, count),
    st.builds(Return, text, count, count, count),
    st.builds(Publish, text, count, name, positive, text, metadata),
    st.builds(PublishPack, text, count, packed),
    st.builds(Credit, text, count, count, count),
    st.builds(Settle, text, count, settlements),
    st.builds(Renew, text, count, numbers, numbers),
)  # fmt: skip
from_broker = st.one_of(
    *either,
    st.builds(Welcome, text, count, text, positive, positive, positive),
    st.builds(Error, text, count, text, text),
    st.builds(Grant, text, count, count, count),
    st.builds(Confirm, text, count, numbers),
    st.builds(DeliverPack, text, count, positive, st.lists(
        st.builds(Lent, positive, positive, positive), max_size=4,
    ).map(tuple), packed),
    st.builds(
        Deliver, text, count, positive, positive, positive, name, positive, text, metadata, text
    ),
)  # fmt: skip


@given(from_peer)
def test_every_message_of_a_peer_is_read_as_it_was_written(message: FromPeer) -> None:
    """Every message that a producer or consumer sends."""
    assert message == decode_from_peer(encode(message))


@given(from_broker)
def test_every_message_of_the_broker_is_read_as_it_was_written(message: FromBroker) -> None:
    """Every message that a broker sends."""
    assert message == decode_from_broker(encode(message))


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789PINGs\\u', max_size=80))
def test_whatever_comes_is_a_message_or_a_protocol_error(frame: bytes | str) -> None:
    """Something else connects to the port; no garbage may end the broker."""
    data = frame.encode() if isinstance(frame, str) else frame
    for decode in (decode_from_peer, decode_from_broker):
        with contextlib.suppress(RemoteProtocolError):
            decode(data)


# ---- limits and what is said of them -----------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (b"", "Input data was truncated"),
        (b"hello", "JSON is malformed"),
        (b"{}", "Expected `array`, got `object`"),
        (b"[]", "Expected `array` of at least length 1"),
        (b'["SHOUT","s",1]', "Invalid value 'SHOUT'"),
        (b'["PING","s"]', "Expected `array` of at least length 3"),
        (b'["PING","s",-1]', "Expected `int` >= 0 - at `$[2]`"),
        (b'["PING","s",1.5]', "Expected `int`, got `float` - at `$[2]`"),
        (b'["PING","s",9007199254740992]', "Expected `int` <= 9007199254740991"),
        (b'["PING","\xff",1]', "can't decode byte 0xff"),
        (b'["PING","s",1,' + b"[" * 30_000 + b"]" * 30_000 + b"]", "maximum recursion depth"),
        (b'["HELLO","",0,"1.0","broker",""]', "Invalid enum value 'broker' - at `$[4]`"),
        (b'["HELLO","",0,"1.0","producer","%s"]' % (b"n" * 201), "length <= 200 - at `$[5]`"),
        (b'["HELLO","",0,"%s","producer",""]' % (b"1" * 17), "length <= 16 - at `$[3]`"),
        (b'["PUBLISH","s",1,"",1,"",{}]', "Expected `str` of length >= 1 - at `$[3]`"),
        (b'["PUBLISH","s",1,"%s",1,"",{}]' % (b"i" * 513), "length <= 512 - at `$[3]`"),
        (b'["PUBLISH","s",1,"i",0,"",{}]', "Expected `int` >= 1 - at `$[4]`"),
        (b'["PUBLISH","s",1,"i",1,"%s",{}]' % (b"k" * 513), "length <= 512 - at `$[5]`"),
        (b'["PUBLISH","s",1,"i",1,"",{"a":1}]', "Expected `str`, got `int` - at `$[6][...]`"),
        (b'["SETTLE","s",1,[[0,"ok"]]]', "Expected `int` >= 1 - at `$[3][0][0]`"),
        (b'["SETTLE","s",1,[[1,"no"]]]', "Invalid enum value 'no' - at `$[3][0][1]`"),
        (b'["SETTLE","s",1,[[1,"bury","%s"]]]' % (b"r" * 1001), "length <= 1000"),
        (b'["PING","' + b"s" * CONTROL_BYTES_MAX + b'",1]', "control frame over 65536 bytes"),
    ],
)
def test_bad_frame_of_a_peer_is_refused_with_what_is_wrong(frame: bytes, detail: str) -> None:
    """A client that somebody wrote from the document, with a mistake."""
    with pytest.raises(RemoteProtocolError, match=re.escape(detail)) as caught:
        decode_from_peer(frame)
    assert "bad_message" == caught.value.code
    assert str(caught.value) == f"bad_message: {caught.value.detail}"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b'["PUBLISH","s",1,"i",1,"",{}]',
        b'["PING","\xff",1]',
        b'["PING","s",1,' + b"[" * 30_000,
    ],
)
def test_bad_frame_of_a_broker_is_refused_too(frame: bytes) -> None:
    """It is no broker that answers there."""
    with pytest.raises(RemoteProtocolError, match="bad_message"):
        decode_from_broker(frame)


def test_longest_control_frame_is_accepted() -> None:
    """Metadata up to the limit."""
    frame = encode(Ping("", 1))
    session = "s" * (CONTROL_BYTES_MAX - len(frame))
    assert session == decode_from_peer(encode(Ping(session, 1))).session


@pytest.mark.parametrize(
    "frame",
    [
        b' [ "PING" , "s" ,\n 1 ] ',
        b'["PING","s",1,"of version 1.9",{"and":["more"]}]',
    ],
)
def test_white_space_and_fields_of_later_versions_are_ignored(frame: bytes) -> None:
    """A client in another language, or a newer one."""
    assert Ping("s", 1) == decode_from_peer(frame)


def test_settlement_needs_no_reason() -> None:
    """The document has it for `bury` only; a peer of 1.0 says no count."""
    settled = decode_from_peer(b'["SETTLE","s",1,[[7,"ok"]]]')
    assert Settle("s", 1, (Settlement(7, "ok", "", 1),)) == settled
    assert Renew("s", 1, (7, 9), ()) == decode_from_peer(b'["RENEW","s",1,[7,9]]')


# ---- the document ------------------------------------------------------------------------------

#: Fields that stand for `s`, `n` and the numbers that are fixed.
_FIRST = ("session", "number")
_LISTS = {
    "number, ...": "numbers",
    "lease, ...": "leases",
    "count, ...": "counts",
    "lease, outcome, reason, count": "settlements",
    "lease, count, attempt": "lent",
    "id, records, bytes, key, metadata": "messages",
}


def _documented() -> set[tuple[str, ...]]:
    """Messages of the tables in the document, with the names of their fields."""
    found = set()
    for row in re.findall(r'^\| (?:peer|broker|both) \| `\["([A-Z]+)", (.*?)\]`', DOCUMENT, re.M):
        kind, fields = row
        for listed, field in _LISTS.items():
            fields = fields.replace(f"[[{listed}], ...]", field).replace(f"[{listed}]", field)
        found.add((kind, *_FIRST, *fields.split(", ")[2:]))
    return found


def test_document_and_code_have_the_same_messages_and_fields_in_the_same_order() -> None:
    """Somebody changes one of the two."""
    code = {
        (kind.__struct_config__.tag, *kind.__struct_fields__)
        for kind in {*get_args(FromPeer), *get_args(FromBroker)}
    }
    assert _documented() == code


def test_document_says_who_sends_what() -> None:
    """The same, for the direction."""
    for kind in {*get_args(FromPeer), *get_args(FromBroker)}:
        ways = (kind in get_args(FromPeer), kind in get_args(FromBroker))
        sender = {(True, True): "both", (True, False): "peer", (False, True): "broker"}[ways]
        tag = kind.__struct_config__.tag
        assert re.search(rf'^\| {sender} \| `\["{tag}"', DOCUMENT, re.M)


def test_document_and_code_have_the_same_error_codes() -> None:
    """A code that nobody can look up, or one that is never sent."""
    section = DOCUMENT.partition("## Errors")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (yes)? ?\|$", section, re.M)
    package = ROOT / "src" / "telemq"
    files = [package / "protocol.py", *(package / "broker").glob("*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    raised = re.findall(r'RemoteProtocolError\(\s*"(\w+)"', source)
    assert {code for code, _ in rows} == set(raised)
    assert {code for code, final in rows if final} == FINAL_ERRORS


def test_document_and_code_have_the_same_numbers() -> None:
    """Limits that a client in another language is built on."""
    for number in (f'"{VERSION}"', f"{INTEGER_MAX} (2^53 - 1)", "at most 64 KiB"):
        assert number in DOCUMENT
    assert 64 * 1024 == CONTROL_BYTES_MAX
    assert "five times that long" in DOCUMENT
    assert 5 == SILENT_BEATS
    limits = {
        "name at most 200 characters": (Hello, "name", 200),
        "`id`: 1 to 512 characters": (Publish, "id", 512),
        "`key`: at most 512 characters": (Publish, "key", 512),
    }
    for said, (kind, field, most) in limits.items():
        assert said in DOCUMENT
        fields = {f.name: f.type for f in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
        assert most == fields[field].max_length
    assert "the reason (at most 1,000 characters)" in DOCUMENT
    assert f"At most {PACK_MESSAGES_MAX:,} messages, and 1 MiB of payload" in DOCUMENT
    assert 1024 * 1024 == PACK_BYTES_MAX
    assert f"control frame of a producer's PACK is at most {PACK_CONTROL_BYTES_MAX:,} bytes" in (
        DOCUMENT
    )
    assert f"at most {LEASES_MAX:,} leases" in DOCUMENT


@given(st.lists(st.tuples(name, positive, small, text, metadata), min_size=1, max_size=5))
def test_lines_of_a_pack_are_never_longer_in_a_deliver_than_they_came(
    lines: list[tuple[str, int, int, str, dict[str, str]]],
) -> None:
    """A broker hands on what it has read, however its producer writes JSON."""
    spelt = json.dumps(["PACK", "s", 1, lines], separators=(",", ":")).encode()
    pack = decode_from_peer(spelt)
    assert isinstance(pack, PublishPack)
    assert len(encode(pack)) <= len(spelt)


def test_longest_pack_of_a_producer_fits_into_one_for_a_consumer() -> None:
    """Whoever publishes it must not break the session of whoever is to get it."""
    short = [Packed(f"i{n}", 1, 0, "k" * 400, {}) for n in range(155)]
    while len(frame := encode(PublishPack("s", 1, tuple(short)))) > PACK_CONTROL_BYTES_MAX:
        with pytest.raises(RemoteProtocolError, match="control frame of PACK over 65000 bytes"):
            decode_from_peer(frame)
        short.pop()
    assert PACK_CONTROL_BYTES_MAX - 500 < len(frame)
    assert PublishPack("s", 1, tuple(short)) == decode_from_peer(frame)
    most = INTEGER_MAX
    deliver = DeliverPack("s" * 16, most, most, (Lent(most, most, most),), tuple(short))
    assert len(encode(deliver)) <= CONTROL_BYTES_MAX


@pytest.mark.parametrize(("version", "packs"), [
    ("1.1", True), ("1.10", True), ("1.0", False), ("1", False), ("1.x", False), ("1.-1", False),
])  # fmt: skip
def test_only_a_minor_version_from_one_on_speaks_packs(version: str, packs: bool) -> None:
    """Old peers and new ones at one broker, while a fleet is upgraded."""
    assert packs == speaks_packs(version)


def test_line_of_a_pack_is_as_short_as_a_publish_must_be() -> None:
    """It has to fit into a DELIVER with a long reason, if it becomes a dead letter."""
    long = Packed("i", 1, 0, "", {"k" * 500 + str(n): "v" * 510 for n in range(20)})
    with pytest.raises(RemoteProtocolError, match="control frame of PUBLISH over 16384 bytes"):
        decode_from_peer(encode(PublishPack("s", 1, (long,))))
    short = tuple(Packed("i" * 500, 1, 0, "", {}) for _ in range(100))
    assert PublishPack("s", 1, short) == decode_from_peer(encode(PublishPack("s", 1, short)))


def test_longest_publish_fits_into_a_deliver_with_the_longest_reason() -> None:
    """Whoever publishes it must not break the session of whoever is to get it."""
    metadata = {"k" * 500 + str(n): "v" * 510 for n in range(15)}
    frame = encode(Publish("s" * 16, INTEGER_MAX, "i" * 300, 1, "k" * 300, metadata))
    assert PUBLISH_BYTES_MAX - 500 < len(frame) <= PUBLISH_BYTES_MAX
    publish = decode_from_peer(frame)
    assert isinstance(publish, Publish)
    most = INTEGER_MAX
    deliver = Deliver(
        *("s" * 16, most, most, most, most, publish.id, most, publish.key),
        publish.metadata,
        "\x01" * 1000,
    )
    assert len(encode(deliver)) <= CONTROL_BYTES_MAX
    too_long = frame + b" " * (PUBLISH_BYTES_MAX - len(frame) + 1)
    with pytest.raises(RemoteProtocolError, match="control frame of PUBLISH over 16384 bytes"):
        decode_from_peer(too_long)
