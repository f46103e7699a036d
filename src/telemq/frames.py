"""The payload frames of a PACK: small payloads share one, a large one has one of its own.

To join payloads is to copy them, and each frame costs both ends of a connection the same whatever
is in it; so up to some size one is cheaper, and from there on the other. Where that is depends on
what a broker does with them, so WELCOME tells producers (`Welcome.join_bytes`). Ours hands a frame
on as it came, and writes it to its journal as one entry: the fewer, the better. Whoever receives a
PACK need not know: a frame ends where a message does::

    messages   a b c   d         e f g
    frames     aabbc | ddddddd | effg

What was measured is in docs/decisions/0008-frames-of-a-pack.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from telemq.protocol import Frames, Packed, Payload

__all__ = ["COPY_BYTES_MAX", "join", "split"]

#: A larger frame is received without a copy; for a smaller one the bookkeeping costs more.
COPY_BYTES_MAX = 32_768


def join(payloads: Sequence[Payload], size_bytes: int, join_bytes: int) -> Frames:
    """Give the frames of messages with these payloads, in their order.

    Args:
        payloads: at least one.
        size_bytes: of all together.
        join_bytes: a larger one has a frame of its own.
    """
    if len(payloads) == 1:
        return (payloads[0],)
    if size_bytes <= join_bytes or max(map(len, payloads)) <= join_bytes:
        return (b"".join(payloads),)
    frames: list[Payload] = []
    small: list[Payload] = []
    for payload in payloads:
        if len(payload) <= join_bytes:
            small.append(payload)
            continue
        if joined := b"".join(small):
            frames.append(joined)
        frames.append(payload)
        small.clear()
    if joined := b"".join(small):
        frames.append(joined)
    return tuple(frames)


def split(
    messages: tuple[Packed, ...], size_bytes: int, frames: Frames
) -> list[tuple[tuple[Packed, ...], Payload]]:
    """Give the messages of each frame, and the frame.

    Args:
        messages: of a PACK.
        size_bytes: of their payloads together.
        frames: its payload frames.

    Raises:
        ValueError: the frames are not as long as their messages, or one ends within a message.
    """
    if len(frames) <= 1:
        payload = frames[0] if frames else b""
        if size_bytes != len(payload):
            raise ValueError(_detail(size_bytes, frames))
        return [(messages, payload)]
    parts, start, end = [], 0, len(messages)
    for frame in frames:
        at, left = start, len(frame)
        # Empty messages go with the one before them.
        while at < end and (left > 0 or not messages[at].bytes):
            left -= messages[at].bytes
            at += 1
        if left or not len(frame):
            raise ValueError(_detail(size_bytes, frames))
        parts.append((messages[start:at], frame))
        start = at
    if start != end:
        raise ValueError(_detail(size_bytes, frames))
    return parts


def _detail(size_bytes: int, frames: Frames) -> str:
    lengths = " + ".join([str(len(frame)) for frame in frames[:20]]) or "0"
    return (
        f"the messages of a PACK have {size_bytes} bytes, its payload {lengths}; "
        "no frame but the only one may be empty, and each ends where a message does"
    )
