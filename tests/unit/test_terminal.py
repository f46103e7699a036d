"""What comes from outside cannot steer an operator's terminal."""

from __future__ import annotations

from telemq.terminal import dump, printable


def test_printable_text_is_left_as_it_is() -> None:
    """Names in any script."""
    assert "Knoten-ä 节点 ✓" == printable("Knoten-ä 节点 ✓")


def test_control_characters_are_spelt() -> None:
    """A peer named itself so that it retitles the window; a line feed would forge a line."""
    assert r"a\x1b]0;x\x07\nb" == printable("a\x1b]0;x\x07\nb")
    assert "\\u202e" == printable("\u202e")
    assert "a\n\tb\\r" == printable("a\n\tb\r", lines=True)


def test_bytes_are_text_where_they_can_be() -> None:
    """A payload is JSON as a rule, and whatever a foreign producer likes."""
    assert '{"a": "ä"}' == dump('{"a": "ä"}'.encode())
    assert "ff" + " 00" * 15 + "\n00" == dump(b"\xff" + bytes(16))
