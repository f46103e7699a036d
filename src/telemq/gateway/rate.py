"""How often each client may ask: a token bucket a client, in bounded memory; pure.

A bucket holds `burst` requests and fills at `per_s` a second. It is kept as one number, the moment
at which it is full again (the "generic cell rate algorithm" of ATM networks); from then on it need
not be kept at all. So what is remembered is who asked a short time ago.
"""

from __future__ import annotations

__all__ = ["RateLimit"]


class RateLimit:
    """Says who may ask now.

    Args:
        per_s: requests a second that each client may make in the long run; 0 is no limit.
        burst: that it may make at once after a rest, at least 1.
        clients_max: remembered at once. Beyond that those that asked longest ago are forgotten,
            as if they had rested.
    """

    def __init__(self, *, per_s: float, burst: int, clients_max: int) -> None:
        self._each_s = 1 / per_s if per_s else 0.0
        self._debt_s_max = (burst - 1) * self._each_s
        self._clients_max = clients_max
        # By client, when its bucket is full again; in the order in which they asked last.
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._full_at)

    def take(self, client: str, now_s: float) -> float:
        """Take one request out of a client's bucket; gives 0, or the seconds until there is one.

        Args:
            client: whose.
            now_s: on a clock that does not go back.
        """
        full_at = max(self._full_at.pop(client, now_s), now_s)
        earliest_s = full_at - self._debt_s_max
        if earliest_s > now_s:
            self._full_at[client] = full_at
            return earliest_s - now_s
        if self._each_s:
            self._full_at[client] = full_at + self._each_s
            if len(self._full_at) > self._clients_max:
                del self._full_at[next(iter(self._full_at))]
        return 0.0
