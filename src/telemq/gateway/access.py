"""Who may ask, and how often: the guard of every route but those that are open.

A guard of Litestar's runs after the route is found and costs a call; middleware would cost every
small answer several times its price. So what each route needs stands at the route, in its ``opt``:
nothing said is the scope ``read``, and `OPEN` is for pages, assets and health. A route that says
nothing is guarded.

A client is its token, or its address where no token is needed. What asks the store, and what is
refused, is counted against the address, so that guessing is as slow as asking.

A gateway that only loopback protects answers only to loopback's own names.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from telemq.endpoint import LOOPBACK
from telemq.errors import SettingError
from telemq.gateway.metrics import GatewayMetrics
from telemq.gateway.rate import RateLimit
from telemq.gateway.tokens import Find, KnownTokens
from telemq.health import host_and_port
from telemq.settings import ApiSettings
from telemq.token import Presented, Scope, Token, allows, bearer
from telemq.web.access import is_own_host
from telemq.web.problems import ProblemError

__all__ = ["Gate", "scope_of", "tokens_needed"]

_REALM = 'Bearer realm="telemq"'
_REMEDY = "telemq tokens new makes one"


def scope_of(handler: BaseRouteHandler) -> Scope | None:
    """Give the scope that a route needs; None when it is open to everybody."""
    if handler.opt.get("open"):
        return None
    scope: Scope = handler.opt.get("scope", "read")
    return scope


def tokens_needed(settings: ApiSettings) -> bool:
    """Say whether clients of this gateway need a token.

    Raises:
        SettingError: the address is malformed, or others can reach it and tokens are off without
            `insecure`.
    """
    host, _ = host_and_port("--address", settings.address, insecure=True)
    if settings.tokens == "on":
        return True
    if host in LOOPBACK or settings.insecure:
        return False
    if settings.tokens == "off":
        accepted = "a loopback address with --tokens off, unless --insecure is given"
        raise SettingError("--address", settings.address, accepted)
    return True


class Gate:
    """Lets requests in, or says why not.

    Args:
        settings: of the gateway.
        find: asks the store for a token.
        metrics: where refusals are counted.

    Raises:
        SettingError: see `tokens_needed`.
    """

    def __init__(self, settings: ApiSettings, find: Find, metrics: GatewayMetrics) -> None:
        self._needs_tokens = tokens_needed(settings)
        self._is_private = not (self._needs_tokens or settings.insecure)
        self._metrics = metrics
        self._rate = RateLimit(
            per_s=settings.rate_per_s,
            burst=settings.rate_burst,
            clients_max=settings.clients_max,
        )
        self._tokens = KnownTokens(
            find, keep_s=settings.token_cache_s, tokens_max=settings.clients_max
        )

    async def check(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """Let a request pass.

        Raises:
            ProblemError: 401, 403 or 429.
            StoreError: the token cannot be looked up.
        """
        needed = scope_of(handler)
        if needed is None:
            return
        peer = connection.scope["client"]
        address = _address(peer[0] if peer else "")
        if not self._needs_tokens:
            self._spend(address)
            if self._is_private:
                self._check_host(connection.headers.get("host", ""))
            return
        token = await self._token(connection.headers.get("authorization", ""), address)
        self._spend(f"token {token.id}")
        if not allows(token.scope, needed):
            self._metrics.refused("scope")
            raise ProblemError(
                403,
                f"token {token.name} has the scope {token.scope}; this needs {needed}",
                {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{needed}"'},
            )

    async def _token(self, header: str, address: str) -> Token:
        presented = bearer(header)
        if presented is None:
            self._spend(address)
            if header:
                raise self._refusal("Authorization must be Bearer telemq_…, a token of telemq's")
            raise self._refusal(f"a token is needed: Authorization: Bearer telemq_…; {_REMEDY}", "")
        token, was_spent = await self._find(presented, address)
        if token is None or not token.is_of(presented):
            why = "this token is not known; telemq tokens list shows which are"
        elif (state := token.state(datetime.now(UTC))) != "live":
            why = f"token {token.name} is {state}; {_REMEDY}"
        else:
            return token
        if not was_spent:
            self._spend(address)
        raise self._refusal(why)

    async def _find(self, presented: Presented, address: str) -> tuple[Token | None, bool]:
        """Give the line that a client claims, and whether that was counted."""
        now_s = time.monotonic()
        is_known, token = self._tokens.recall(presented.id, now_s)
        if is_known:
            return token, False
        self._spend(address)
        return await self._tokens.ask(presented, now_s), True

    def _check_host(self, header: str) -> None:
        if not is_own_host(header):
            self._metrics.refused("host")
            raise ProblemError(
                403,
                f"the Host {header[:100]!r} is not accepted; accepted: localhost, 127.0.0.1, [::1]"
                "; by other names a gateway answers with --tokens on, or --insecure",
            )

    def _spend(self, client: str) -> None:
        wait_s = self._rate.take(client, time.monotonic())
        if wait_s:
            self._metrics.refused("rate")
            whole_s = math.ceil(wait_s)
            raise ProblemError(
                429,
                f"too many requests (--rate-per-s, --rate-burst); try again in {whole_s} s",
                {"Retry-After": str(whole_s)},
            )

    def _refusal(self, why: str, error: str = ', error="invalid_token"') -> ProblemError:
        self._metrics.refused("token")
        return ProblemError(401, why, {"WWW-Authenticate": _REALM + error})


def _address(host: str) -> str:
    """Give whom an address stands for: of IPv6 the /64, of which each host has all."""
    if ":" not in host:
        return host
    host = host.partition("%")[0]
    return str(IPv6Address(int(IPv6Address(host)) >> 64 << 64))
