"""What a streamer knows of its leases, and what it does when Postgres says otherwise."""

from telemq.store.leases import Lease
from telemq.streamer.book import LeaseBook, Renewal

NOTHING = Renewal((), 0, False)


def book_with(*, ready: int = 0, published: int = 0) -> LeaseBook:
    """Give a book of batches of ten rows: the published ones first, then the ready ones."""
    book = LeaseBook()
    book.add(Lease(10 * i, 10) for i in range(published + ready))
    for i in range(published):
        assert book.publish(Lease(10 * i, 10))
    return book


def test_lease_goes_from_ready_to_published_to_confirmed() -> None:
    """The life of every batch."""
    book = book_with(ready=2)
    lease = book.next_ready()
    assert Lease(0, 10) == lease
    assert lease is not None
    assert book.publish(lease)
    assert (1, 1) == (book.ready, book.published)
    assert lease == book.confirm(0)
    assert (1, 0) == (book.ready, book.published)


def test_confirm_of_what_is_not_known_is_ignored() -> None:
    """The confirm of a batch that was given up comes late."""
    assert book_with(ready=1).confirm(0) is None


def test_old_rows_are_published_first() -> None:
    """A lease taken over from a dead streamer holds up the end of the stream."""
    book = book_with(ready=1)
    book.confirm(0)
    book.add([Lease(70, 10)])
    book.add([Lease(50, 10)])
    book.publish(Lease(0, 10))
    assert Lease(50, 10) == book.next_ready()


def test_own_lease_taken_over_changes_nothing() -> None:
    """The streamer was suspended for longer than its leases and takes them over itself."""
    book = book_with(ready=1, published=1)
    assert 0 == book.add([Lease(0, 10), Lease(10, 10)])
    assert (1, 1) == (book.ready, book.published)


def test_ready_lease_of_somebody_else_is_not_published() -> None:
    """The streamer was suspended, and another one took its leases over."""
    book = book_with(ready=2)
    lease = book.next_ready()
    assert lease is not None
    assert Renewal((), 1, False) == book.renewed({0, 10}, {10})
    assert not book.publish(lease)
    assert Lease(10, 10) == book.next_ready()


def test_published_lease_is_lost_when_two_renewals_miss_it() -> None:
    """Somebody else has it, and gets its confirm; once could be a confirm under way."""
    book = book_with(published=2)
    assert NOTHING == book.renewed({0, 10}, {10})
    assert Renewal((0,), 0, False) == book.renewed({0, 10}, {10})
    assert {10} == book.known()


def test_confirm_between_renewals_is_no_loss() -> None:
    """The usual case: the commit closed the lease just before the renewal."""
    book = book_with(published=1)
    assert NOTHING == book.renewed({0}, set())
    assert book.confirm(0) is not None
    assert NOTHING == book.renewed(set(), set())


def test_lease_that_comes_back_begins_anew() -> None:
    """Missed, there again, missed again: never twice in a row."""
    book = book_with(published=1)
    for ours in (set[int](), {0}, set[int]()):
        assert NOTHING == book.renewed({0}, ours)


def test_stray_lease_is_released_when_two_renewals_find_it() -> None:
    """The connection broke after the reservation's commit and before its answer."""
    book = book_with(published=1)
    assert NOTHING == book.renewed({0}, {0, 90})
    assert Renewal((), 0, True) == book.renewed({0}, {0, 90})


def test_lease_confirmed_during_the_renewal_is_no_stray() -> None:
    """The renewal read it, then it was confirmed, then the answer came."""
    book = book_with(published=1)
    book.confirm(0)
    assert NOTHING == book.renewed({0}, {0})
    assert NOTHING == book.renewed(set(), {0})
    assert NOTHING == book.renewed(set(), set())


def test_reservation_during_the_renewal_is_not_missing() -> None:
    """What came in after the renewal was asked for cannot be in its answer."""
    book = book_with(published=1)
    book.add([Lease(10, 10)])
    assert NOTHING == book.renewed({0}, {0})
    assert 1 == book.ready


def test_lease_of_a_confirmed_batch_is_kept_until_its_commit() -> None:
    """The queue keeps batches itself and confirmed one; Postgres is away for minutes."""
    book = book_with(published=1)
    book.confirm(0)
    for _ in range(100):
        assert NOTHING == book.renewed({0}, {0})
    assert (frozenset({0}), 0) == (book.known(), book.add([Lease(0, 10)]))
    assert NOTHING == book.renewed({0}, set())
    assert set() == book.known()


def test_lease_of_a_confirmed_batch_that_is_never_committed_is_released() -> None:
    """The queue's disk burned after the confirm: somebody must publish the batch again."""
    book = book_with(published=1)
    book.confirm(0)
    renewals = 0
    while not book.renewed(set(book.known()), {0}).strays:
        renewals += 1
        assert renewals < 1000
    assert renewals > 100
