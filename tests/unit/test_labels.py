"""How much one frame says of messages beside their payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.client.labels import SHORT_CHARACTERS, check_labels, within_labels
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
    found = within_labels(batch)
    assert batch[: len(found)] == found
    assert _pack_bytes(found) <= PACK_CONTROL_BYTES_MAX
    if len(found) < len(batch):
        assert _pack_bytes(batch[: len(found) + 1]) > PACK_CONTROL_BYTES_MAX - 500


@pytest.mark.parametrize("character", ["a", '"', "\0", "é", "\U0001f600"])
def test_short_labels_always_fit(character: str) -> None:
    """They are not even looked at."""
    check_labels(_packed(character * (SHORT_CHARACTERS - 1), character))


def test_labels_that_are_too_long_are_refused_with_both_lengths() -> None:
    """Somebody puts a whole document into the metadata."""
    check_labels(_packed("a", metadata={"k": "x" * (PUBLISH_BYTES_MAX - 300)}))
    with pytest.raises(LocalProtocolError, match=rf"^a: .* {PUBLISH_BYTES_MAX} are the limit"):
        check_labels(_packed("a", metadata={"k": "x" * PUBLISH_BYTES_MAX}))
