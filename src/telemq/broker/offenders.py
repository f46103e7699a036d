"""Who breaks the protocol again and again, and is not heard for the rest of a second.

A ROUTER cannot cut off a single peer. But every error ends the session at its address, so what
comes from there next can earn only more errors, until a HELLO. Answering it all would let one peer
that sends without reading fill the broker's memory with answers. So each address is answered so
many errors, and so many HELLOs, in a second; what it sends beyond that is dropped unread. HELLOs
are counted apart, and a new session clears the errors: a peer whose messages were under way while
its broker was started again earns many errors at once, and must be able to begin anew.
"""

from __future__ import annotations

from collections import OrderedDict

from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId

__all__ = ["Offenders"]


class Offenders:
    """Counts errors and HELLOs by address, for so many addresses as there may be peers.

    Args:
        limits: of the broker.
    """

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        #: By address and whether HELLOs are counted: since when, and how many. Oldest first.
        self._counts: OrderedDict[tuple[PeerId, bool], tuple[int, int]] = OrderedDict()

    def is_heard(self, id: PeerId, greets: bool, now_ns: int) -> bool:
        """Tell whether a message is to be looked at; `greets` if it is a HELLO."""
        since_ns, count = self._counts.get((id, greets), (now_ns, 0))
        return count < self._limits.errors_max or now_ns >= since_ns + self._limits.errors_ns

    def note(self, id: PeerId, greets: bool, now_ns: int) -> None:
        """Count one error, or one HELLO."""
        since_ns, count = self._counts.get((id, greets), (now_ns, 0))
        if now_ns >= since_ns + self._limits.errors_ns:
            self._counts.pop((id, greets))
            since_ns, count = now_ns, 0
        self._counts[id, greets] = since_ns, count + 1
        # Two entries an address at most; the oldest is over, or somebody has very many addresses.
        if len(self._counts) > 2 * self._limits.peers_max:
            self._counts.popitem(last=False)

    def forgive(self, id: PeerId) -> None:
        """Forget an address's errors: it has a new session."""
        self._counts.pop((id, False), None)
