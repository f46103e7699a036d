"""How much one frame says of messages beside their payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.client.labels import label_bytes, within_labels
from telemq.errors import LocalProtocolError
from telemq.protocol import (
    INTEGER_MAX,
    PACK_CONTROL_BYTES_MAX,
    PUBLISH_BYTES_MAX,
    Packed,
    PublishPack,
    encode,
)

_TEXTS = st.text(st.sampled_from('a"\\\0é\U0001f600'), max_size=300)


def _packed(id: str, key: str = "", metadata: dict[str, str] | None = None) -> Packed:
    return Packed(id, INTEGER_MAX, 0, key, metadata or {})


def _line_bytes(packed: Packed) -> int:
    return len(encode(packed)) + 1


def _pack_bytes(batch: list[Packed]) -> int:
    return len(encode(PublishPack("s" * 64, INTEGER_MAX, tuple(batch))))


@given(
    st.lists(st.tuples(_TEXTS, st.dictionaries(_TEXTS, _TEXTS, max_size=20)), max_size=40),
    st.integers(1, 30),
)
def test_as_many_messages_go_together_as_a_frame_can_say(
    labels: list[tuple[str, dict[str, str]]], times: int
) -> None:
    """Streams whose pods have names and labels of every length and script."""
    batch = [_packed(f"{n}{id}", metadata=said) for n, (id, said) in enumerate(labels * times)]
    found = within_labels(batch, PACK_CONTROL_BYTES_MAX)
    assert batch[: len(found)] == found
    assert _pack_bytes(found) <= PACK_CONTROL_BYTES_MAX
    if len(found) < len(batch):
        assert _pack_bytes(batch[: len(found) + 1]) > PACK_CONTROL_BYTES_MAX - 500
    longest = max([_line_bytes(packed) for packed in batch], default=0)
    assert found == within_labels(batch, longest)


@given(_TEXTS, _TEXTS, st.dictionaries(_TEXTS, _TEXTS, max_size=5), _TEXTS, _TEXTS)
def test_no_shorter_label_takes_more_than_is_said(
    id: str, key: str, metadata: dict[str, str], other_id: str, other_key: str
) -> None:
    """Characters of one byte and of six, and a message with metadata between two without."""
    packed, other = _packed(id, key, metadata), _packed(other_id, other_key)
    try:
        said = label_bytes(packed)
    except LocalProtocolError:
        return
    assert _line_bytes(packed) <= said
    if len(other_id) + len(other_key) <= len(id) + len(key):
        assert _line_bytes(other) <= said


@pytest.mark.parametrize("character", ["a", '"', "\0", "é", "\U0001f600"])
def test_short_labels_always_fit(character: str) -> None:
    """They are not even written down."""
    longest = _packed(character * 512, character * 512)
    assert _line_bytes(longest) <= label_bytes(longest) < PUBLISH_BYTES_MAX


def test_labels_that_are_too_long_are_refused_with_both_lengths() -> None:
    """Somebody puts a whole document into the metadata."""
    label_bytes(_packed("a", metadata={"k": "x" * (PUBLISH_BYTES_MAX - 300)}))
    with pytest.raises(LocalProtocolError, match=rf"^a: .* {PUBLISH_BYTES_MAX} are the limit"):
        label_bytes(_packed("a", metadata={"k": "x" * PUBLISH_BYTES_MAX}))
