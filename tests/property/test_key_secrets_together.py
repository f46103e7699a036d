"""Two keys Jobs in every order of their calls, each of which may die at any of them."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from telemq.certificate import parse
from telemq.kubernetes import make_key_secrets
from telemq.kubernetes.keyset import Secrets
from tests.support.kubeapi import NAMES

_WAIT_S = 20.0


class _Died(BaseException):
    """The process is gone: no `except` of the code under test may run on."""


class _Store:
    """What the API server keeps; nothing in it can be changed."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, bytes]] = {}

    def get(self, name: str) -> dict[str, bytes] | None:
        return self.secrets.get(name)

    def create(self, name: str, data: dict[str, str]) -> bool:
        if name in self.secrets:
            return False
        self.secrets[name] = {entry: text.encode() for entry, text in data.items()}
        self.check()
        return True

    def check(self) -> None:
        """At no moment is there a key that the set does not allow."""
        allowed = self.secrets[NAMES.broker]
        for whose, name in (("streamer", NAMES.streamer), ("collector", NAMES.collector)):
            if (copy := self.secrets.get(name)) is not None:
                assert _key(allowed, f"{whose}.key") == _key(copy, f"{whose}.key_secret")
                assert _key(allowed, "broker.key") == _key(copy, "broker.key")


def _key(data: dict[str, bytes], entry: str) -> bytes:
    return parse(data[entry])["public-key"]


class _Job:
    """One run in a thread of its own that makes a call only when it is told to.

    Args:
        store: shared.
        dies: at which call, from 1; 0 is never.
        done: whether that call is carried out.
    """

    def __init__(self, store: _Store, dies: int, done: bool) -> None:
        self.error: BaseException | None = None
        self.over = False
        self._store, self._dies, self._done = store, dies, done
        self._calls = 0
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(self,), daemon=True)
        self._thread.start()
        assert self._waits.acquire(timeout=_WAIT_S)

    def step(self) -> None:
        """Let it make one call, and go on until the next or its end."""
        if not self.over:
            self._go.release()
            assert self._waits.acquire(timeout=_WAIT_S)

    def _run(self, secrets: Secrets) -> None:
        try:
            make_key_secrets(secrets, NAMES)
        except (_Died, Exception) as error:  # noqa: BLE001 - told to the test
            self.error = error
        self.over = True
        self._waits.release()

    def _before(self) -> bool:
        self._waits.release()
        assert self._go.acquire(timeout=_WAIT_S)
        self._calls += 1
        if self._calls == self._dies and not self._done:
            raise _Died
        return self._calls == self._dies

    def get(self, name: str) -> dict[str, bytes] | None:
        last = self._before()
        found = self._store.get(name)
        if last:
            raise _Died
        return found

    def create(self, name: str, data: dict[str, str]) -> bool:
        last = self._before()
        made = self._store.create(name, data)
        if last:
            raise _Died
        return made


def _together(
    order: list[int], deaths: tuple[int, int], done: tuple[bool, bool]
) -> list[BaseException | None]:
    """Run two jobs in this order, and one after them; give how the two ended."""
    store = _Store()
    jobs = [_Job(store, dies, at_end) for dies, at_end in zip(deaths, done, strict=True)]
    for number in order:
        jobs[number].step()
    for job in jobs:
        while not job.over:
            job.step()
        assert job.error is None or isinstance(job.error, _Died), job.error
    make_key_secrets(store, NAMES)
    store.check()
    assert {NAMES.broker, NAMES.streamer, NAMES.collector} == set(store.secrets)
    return [job.error for job in jobs]


def test_any_order_and_any_death_ends_in_one_set() -> None:
    """Two upgrades at once on nodes that die; whoever runs next finds or completes one set."""
    seen: set[type] = set()

    @settings(max_examples=400, deadline=None)
    @given(
        order=st.lists(st.integers(0, 1), max_size=20),
        deaths=st.tuples(st.integers(0, 9), st.integers(0, 9)),
        done=st.tuples(st.booleans(), st.booleans()),
    )
    def tries(order: list[int], deaths: tuple[int, int], done: tuple[bool, bool]) -> None:
        seen.update(map(type, _together(order, deaths, done)))

    tries()
    assert {_Died, type(None)} == seen, "it would also hold if nothing ever happened"
