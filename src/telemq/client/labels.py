"""What is said of a message beside its payload, and how much of that one frame may say; pure.

The labels of a message are its id, key and metadata. How long they are shows when they are written
down: a character may take one byte or six.
"""

from __future__ import annotations

from telemq.errors import LocalProtocolError
from telemq.protocol import (
    INTEGER_MAX,
    PACK_CONTROL_BYTES_MAX,
    PUBLISH_BYTES_MAX,
    Packed,
    Publish,
    encode,
)

__all__ = ["label_bytes", "within_labels"]

#: Id and key of so many characters together fit into a PUBLISH, however they are written.
_SHORT_CHARACTERS = 2000
#: Most bytes of a character, and of all else that a PACK says of a message without metadata.
_CHARACTER_BYTES, _LINE_BYTES = 6, 50
#: Most bytes of what a PACK says of its messages, and of how many that is written down at a time.
_PACK_LABEL_BYTES_MAX = PACK_CONTROL_BYTES_MAX - 200
_STEP_MESSAGES = 64
#: As long as any session.
_ANY_SESSION = "0" * 64


def label_bytes(packed: Packed) -> int:
    """Give how many bytes the labels of a message take in a PACK, or more.

    One whose id and key have no more characters together, and that has no metadata, takes no more.

    Raises:
        LocalProtocolError: they are too long for a PUBLISH.
    """
    characters = len(packed.id) + len(packed.key)
    most_bytes = characters * _CHARACTER_BYTES + _LINE_BYTES
    if not packed.metadata and characters <= _SHORT_CHARACTERS:
        return most_bytes
    publish = Publish(
        _ANY_SESSION, INTEGER_MAX, packed.id, INTEGER_MAX, packed.key, packed.metadata
    )
    size_bytes = len(encode(publish))
    if size_bytes > PUBLISH_BYTES_MAX:
        raise LocalProtocolError(
            f"{packed.id[:100]}: id, key and metadata take {size_bytes} bytes of a PUBLISH; "
            f"{PUBLISH_BYTES_MAX} are the limit: put more into the payload"
        )
    return max(most_bytes, size_bytes)


def within_labels(batch: list[Packed], each_bytes: int) -> list[Packed]:
    """Give the first messages of a batch whose labels fit into one PACK.

    Args:
        batch: some messages.
        each_bytes: none of them has more `label_bytes`. So a few short ones are not written down.
    """
    if len(batch) * each_bytes <= _PACK_LABEL_BYTES_MAX:
        return batch
    end = size_bytes = 0
    step = _STEP_MESSAGES
    while end < len(batch) and step:
        added = len(encode(batch[end : end + step]))
        if size_bytes + added > _PACK_LABEL_BYTES_MAX:
            step //= 2
            continue
        size_bytes += added
        end += step
    return batch[:end]
