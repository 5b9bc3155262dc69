"""The lease: who may take it, when it is lost, and what a lost answer means. The book's way through text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scalers import TownStore
from town import ON_DEMAND, SPOT, Town

from irs.errors import StorageUnavailable
from scaler.book import Book, Intent, LeaseFacts, Money, Said
from scaler.lease import Lease
from scaler.limits import Block, Limits, rotated
from scaler.observation import Pair
from scaler.store import Stored

TTL_S = 15


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def store(town: Town) -> TownStore:
    return TownStore(town)


def lease_of(town: Town, store: TownStore, name: str, *, skew_s: float = 0.0, clock: Callable[[], float] | None = None) -> Lease:
    nonces = iter(f"{name}-{n}" for n in range(10**6))
    return Lease(store, holder=name, ttl_s=TTL_S, nonce=lambda: next(nonces), clock=clock or (lambda: town.t + skew_s))


def lead(lease: Lease) -> Book:
    found = lease.acquire()
    assert found is not None
    return found[0]


def test_first_scaler_makes_the_book_and_leads_epoch_1(town: Town, store: TownStore) -> None:
    lease = lease_of(town, store, "a")

    found = lease.acquire()

    assert found is not None
    assert (False, 1, True) == (found[1], lease.epoch, lease.is_valid())


def test_standby_takes_over_after_one_and_a_half_lives_of_silence_and_not_before(town: Town, store: TownStore) -> None:
    lead(lease_of(town, store, "a"))
    standby = lease_of(town, store, "b", skew_s=-86_400.0)
    assert standby.acquire() is None
    taken = []
    while not taken:
        town.pass_s()
        taken = [town.t] if standby.acquire() else []

    assert math.ceil(1.5 * TTL_S) == taken[0]
    assert 2 == standby.epoch


def test_standby_never_takes_over_while_the_leader_writes(town: Town, store: TownStore) -> None:
    leader, standby = lease_of(town, store, "a"), lease_of(town, store, "b")
    book = lead(leader)

    for _ in range(200):
        town.pass_s(5)
        assert leader.write(book)
        assert standby.acquire() is None
    assert "a" == standby.other.holder


def test_lease_runs_out_its_life_after_the_last_write_was_sent(town: Town, store: TownStore) -> None:
    leader = lease_of(town, store, "a")
    book = lead(leader)

    town.pass_s(TTL_S - 1)
    before = leader.is_valid()
    town.pass_s()

    assert (True, False, False) == (before, leader.is_valid(), leader.write(book))


def test_deposed_leader_cannot_write_any_more(town: Town, store: TownStore) -> None:
    # A clock that stands still, as of a process that was stopped.
    deposed, successor = lease_of(town, store, "a", clock=lambda: 1.0), lease_of(town, store, "b", skew_s=5.0)
    book = lead(deposed)
    successor.acquire()
    town.pass_s(30)
    lead(successor)

    assert not deposed.write(book)
    assert not deposed.is_valid()
    assert successor.write(book)


def test_released_lease_is_taken_at_once_with_the_book_as_it_was(town: Town, store: TownStore) -> None:
    leader = lease_of(town, store, "a")
    book = replace(lead(leader), money=Money(day="2026-01-31", usd=1.5))
    leader.write(book)

    leader.release(book)

    assert 1.5 == lead(lease_of(town, store, "b")).money.usd


@pytest.mark.parametrize("lost", ["write", "written"])
def test_lost_answer_is_no_lost_lease_whether_or_not_the_book_was_stored(town: Town, store: TownStore, lost: str) -> None:
    leader = lease_of(town, store, "a")
    book = lead(leader)
    left = [1]

    def lose(action: str) -> None:
        if action == lost and left:
            left.pop()
            raise StorageUnavailable("no answer")

    town.before_call = lose

    assert leader.write(book)
    assert leader.write(book)
    assert 1 == leader.epoch


def test_leader_without_a_store_goes_on_until_its_lease_runs_out_and_leads_anew_when_nobody_wrote(
    town: Town, store: TownStore
) -> None:
    leader = lease_of(town, store, "a")
    book = lead(leader)
    store.is_down = True
    during = []
    for _ in range(4):
        during.append((leader.is_valid(), leader.write(book)))
        town.pass_s(5)

    store.is_down = False

    assert [(True, False)] * 3 + [(False, False)] == during
    lead(leader)
    assert 2 == leader.epoch


def test_book_that_is_none_of_ours_is_taken_over_after_the_same_wait(town: Town) -> None:
    class Foreign(TownStore):
        def read(self, now: float) -> Stored | None:
            return Stored(Book(), "x", is_readable=False)

    lease = lease_of(town, Foreign(town), "a")
    first = lease.acquire()
    town.pass_s(10)
    second = lease.acquire()

    assert (None, None) == (first, second)


numbers = st.floats(0, 1e6)
pairs = st.sampled_from([SPOT, ON_DEMAND, Pair("", "", "on-demand")])
intents = st.builds(
    Intent, launch=st.text(max_size=9), attempt=st.integers(0, 9), pair=pairs, count=st.integers(1, 19), at=numbers,
    ids=st.lists(st.text(max_size=5), max_size=3).map(tuple), answered_at=st.none() | numbers, pooled=st.booleans(),
)  # fmt: skip
limits = st.builds(
    Limits, blocks=st.dictionaries(pairs, st.builds(Block, numbers, st.integers(0, 9))), ceiling=st.none() | st.integers(0, 19),
    ceiling_until=numbers, failed_boots=st.integers(0, 9), refused=st.text(max_size=9), tried_at=st.none() | numbers,
    notices=st.lists(numbers, max_size=3).map(tuple),
)  # fmt: skip
books = st.builds(
    Book, intents=st.lists(intents, max_size=4).map(tuple), limits=limits, serial=st.integers(0, 99),
    lease=st.builds(LeaseFacts, holder=st.text(max_size=9), nonce=st.text(max_size=9), epoch=st.integers(0, 99)),
    known=st.frozensets(st.text(max_size=5), max_size=4),
    money=st.builds(Money, day=st.just("2026-01-31"), usd=numbers), said=st.none() | st.builds(
        Said, wall=numbers, kind=st.just("backlog"), reason=st.text(max_size=9), policy=st.just("eco"), cap=st.integers(1, 19)
    ),
)  # fmt: skip


@effort(max_examples=40, deadline=None)
@given(books, numbers)
def test_book_survives_the_way_through_text_and_another_clock(book: Book, now: float) -> None:
    text = json.dumps(book.to_json(now))

    read = Book.from_json(json.loads(text), 5.0)

    # Ages are what travels; their last digits may not survive two subtractions.
    again, before = read.to_json(5.0), json.loads(text)
    assert before.keys() == again.keys()
    assert [(one.launch, one.token, one.count, one.ids) for one in book.intents] == [
        (one.launch, one.token, one.count, one.ids) for one in read.intents
    ]
    assert [now - one.at for one in book.intents] == pytest.approx([5.0 - one.at for one in read.intents], abs=1e-3)
    assert (book.lease, book.known, book.money, book.said) == (read.lease, read.known, read.money, read.said)
    assert book.limits.blocks.keys() == read.limits.blocks.keys()


@pytest.mark.parametrize("part", ["policy", "intents", "limits", "known", "money", "said", "serial", "ending"])
@pytest.mark.parametrize("broken", [7, "x", [[1]], {"a": {}}])
def test_broken_part_of_a_book_costs_that_part_alone(part: str, broken: object) -> None:
    book = Book(lease=LeaseFacts(holder="a", nonce="n", epoch=4), serial=3, money=Money(day="d", usd=2.0))
    document = {**book.to_json(0.0), part: broken}

    read = Book.from_json(document, 0.0)

    assert 4 == read.lease.epoch
    assert part == "money" or 2.0 == read.money.usd


@pytest.mark.parametrize("document", [{}, {"lease": 3}, {"lease": {"epoch": "x"}}, {"lease": {"color": 1}}])
def test_text_without_a_lease_is_no_book(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no book"):
        Book.from_json(document, 0.0)


# Limits


def test_place_that_refuses_is_left_alone_for_a_minute_then_twice_as_long_up_to_a_quarter_of_an_hour() -> None:
    limits, lengths = Limits(), []
    for _ in range(7):
        limits = limits.after_refusal(SPOT, 0.0, "seed")
        lengths.append(limits.blocks[SPOT].until)

    assert all(length <= got <= 1.2 * length for length, got in zip([60, 120, 240, 480, 900, 900, 900], lengths, strict=True))
    assert limits.after_launch(SPOT, 0.0).blocks == {}


def test_spot_notice_makes_no_block_shorter_that_is_long_already() -> None:
    limits = Limits(blocks={SPOT: Block(900.0, 5)})

    assert {SPOT: 900.0} == limits.after_notice(SPOT, 0.0).blocked_until([SPOT], 0.0)


def test_zones_take_turns_and_types_and_markets_keep_their_order() -> None:
    places = tuple(Pair(kind, zone, market) for kind in "AB" for zone in "xy" for market in ("spot", "on-demand"))  # type: ignore[arg-type]

    first, second = rotated(places, 0), rotated(places, 1)

    assert list(places) == first
    assert ["Ay", "Ay", "Ax", "Ax", "By", "By", "Bx", "Bx"] == [one.type + one.zone for one in second]
    assert ["spot", "on-demand"] * 4 == [one.market for one in second]


def test_quota_that_was_met_holds_launches_for_ten_minutes() -> None:
    limits = Limits().after_quota(3, 0.0)

    assert [0, 1, 10**6] == [limits.room(now, live=live, booting=0).launches for now, live in ((1.0, 3), (1.0, 2), (600.0, 3))]


def test_spot_market_without_an_alternative_is_still_asked_after_many_notices() -> None:
    limits = Limits()
    for at in (0.0, 1.0, 2.0, 3.0):
        limits = limits.after_notice(Pair("A", "x", "spot"), at)
    other = Pair("A", "y", "spot")

    assert other not in limits.blocked_until([Pair("A", "x", "spot"), other], 4.0)
    assert other in limits.blocked_until([other, ON_DEMAND], 4.0)
