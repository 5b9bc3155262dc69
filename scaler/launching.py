"""From a wish for instances to calls of EC2: which place is asked, with which token, and what its answer means."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from scaler.book import Book, Intent
from scaler.fleet import NO_CAPACITY, QUOTA, SPENT, Ec2, Refused, Throttled, Unanswered
from scaler.limits import next_place
from scaler.observation import Pair

log = logging.getLogger(__name__)

#: EC2 is asked twice a second at most, a period's worth at once.
CALLS_PER_S, BURST = 2.0, 10.0
#: After EC2 said that it is asked too often it is left alone, for longer each time.
PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
#: Where stopped instances are: it may have nothing to give as any other place.
POOL = Pair("stopped", "", "on-demand")
#: No more launches are asked for in a minute than the cap has instances; of a small fleet so many, or one worker that
#: ended early would not be replaced for a minute.
MINUTE_S, LEAST_LAUNCHES = 60.0, 6


class Backoff:
    """For how long EC2 is left alone after it said that it is asked too often. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._until, self._throttled = clock, float("-inf"), 0

    def is_over(self) -> bool:
        """Return whether EC2 may be asked again."""
        return self._clock() >= self._until

    def throttled(self) -> None:
        """EC2 was asked too often: wait."""
        self._throttled += 1
        self._until = self._clock() + min(PAUSE_S * 2 ** min(self._throttled - 1, 10), LONGEST_PAUSE_S)

    def answered(self) -> None:
        """EC2 answered: the next pause is short again."""
        self._throttled = 0


class Allowance:
    """How many calls that change something EC2 gets: a bucket that fills with time. ``clock``: monotonic seconds.

    EC2 counts calls that only look for themselves: what it says of one kind tells nothing of the other.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._left, self._at = clock, BURST, clock()
        self.backoff = Backoff(clock)
        self._launches: deque[float] = deque()

    def take(self) -> bool:
        """Return whether one call may be made now."""
        now = self._clock()
        self._left = min(BURST, self._left + max(0.0, now - self._at) * CALLS_PER_S)
        self._at = now
        if not self.backoff.is_over() or self._left < 1:
            return False
        self._left -= 1
        return True

    def take_launch(self, cap: int) -> bool:
        """Return whether one launch may be asked for now."""
        now = self._clock()
        while self._launches and now - self._launches[0] >= MINUTE_S:
            self._launches.popleft()
        if len(self._launches) >= max(cap, LEAST_LAUNCHES) or not self.take():
            return False
        self._launches.append(now)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """What launches need to know.

    Attributes:
        fleet: begins every launch id.
        candidates: places in the user's order.
        may_act: whether this process leads at this very moment.
        store: writes the book before EC2 is called again; False: nothing more may be done.
    """

    fleet: str
    candidates: tuple[Pair, ...]
    cap: int
    ec2: Ec2
    allowance: Allowance
    clock: Callable[[], float]
    may_act: Callable[[], bool]
    store: Callable[[Book], bool]
    forget: Callable[[str], None]

    def wish(self, book: Book, count: int, stopped: tuple[str, ...], why: str) -> Book:
        """Return the book with ``count`` instances asked for: stopped ones first, the rest of the next free place."""
        now = self.clock()
        blocked = book.limits.blocked_until(self.candidates, now)
        asked = {id for intent in book.intents if intent.pooled for id in intent.ids}
        free = () if POOL in blocked else tuple(id for id in stopped if id not in asked)
        started, place = free[:count], next_place(self.candidates, blocked, book.serial)
        wishes = []
        if started:
            wishes.append(Intent(launch="", pair=POOL, count=len(started), at=now, ids=started, pooled=True, why=why))
        if count > len(started) and place is not None:
            wishes.append(Intent(launch="", pair=place, count=count - len(started), at=now, why=why))
        for wish in wishes:
            book = self._with_new(book, wish)
        return book

    def act(self, book: Book, live: int) -> Book:
        """Ask EC2 for all that is not answered yet; return what is known then. ``live``: instances there now."""
        for launch in [intent.launch for intent in book.intents if intent.answered_at is None]:
            # As often as there are places: each refusal moves the intent on, and the book is stored before the next call.
            for _ in range(len(self.candidates) + 1):
                intent = next((one for one in book.intents if one.launch == launch and one.answered_at is None), None)
                if intent is None or not self.may_act() or not self.allowance.take_launch(self.cap):
                    break
                before = book
                book, goes_on = self._call(book, intent, live)
                if not goes_on:
                    break
                if book.intents != before.intents and not self.store(book):
                    return book
        return book

    def _call(self, book: Book, intent: Intent, live: int) -> tuple[Book, bool]:
        """Ask EC2 once; return the book and whether the intent is to be asked for again at once, elsewhere."""
        now = self.clock()
        try:
            if intent.pooled:
                for id in intent.ids:
                    # What it said before it was stopped must not be taken for its new life's words.
                    self.forget(id)
            ids = self.ec2.start(intent) if intent.pooled else self.ec2.run(intent)
        except Throttled as error:
            self.allowance.backoff.throttled()
            log.warning("ec2 throttles", extra={"launch": intent.launch, "reason": str(error)})
            return book, False
        except Unanswered as error:
            log.warning("launch unanswered", extra={"launch": intent.launch, "reason": str(error)})
            return book, False
        except Refused as error:
            self.allowance.backoff.answered()
            return self._refused(book, intent, error, live)
        self.allowance.backoff.answered()
        log.info(
            "launched",
            extra={"launch": intent.launch, "instances": ",".join(ids), "place": "/".join(intent.pair), "why": intent.why},
        )
        answered = replace(intent, ids=tuple(ids), answered_at=self.clock())
        book = replace(_with(book, answered), limits=book.limits.after_launch(intent.pair, now))
        missing = intent.count - len(ids)
        if missing <= 0 or intent.pooled:
            return book, False
        # The place gave what it had: the rest is asked of the next one.
        book = replace(book, limits=book.limits.after_refusal(intent.pair, now, intent.token))
        return self._elsewhere(book, replace(intent, count=missing, at=now), is_new=True), False

    def _refused(self, book: Book, intent: Intent, error: Refused, live: int) -> tuple[Book, bool]:
        now = self.clock()
        log.warning(
            "launch refused",
            extra={"launch": intent.launch, "place": "/".join(intent.pair), "code": error.refusal, "reason": str(error)},
        )
        if intent.pooled:
            # The pool is left alone for a while: what is still needed is launched anew.
            return replace(_without(book, intent), limits=book.limits.after_refusal(POOL, now, intent.launch)), False
        if error.refusal in NO_CAPACITY:
            book = replace(book, limits=book.limits.after_refusal(intent.pair, now, intent.token))
            return self._elsewhere(book, intent, is_new=False), True
        if error.refusal in QUOTA:
            return replace(_without(book, intent), limits=book.limits.after_quota(live, now)), False
        if error.refusal in SPENT:
            return _without(book, intent), False
        log.error("ec2 refuses launches", extra={"code": error.refusal, "reason": str(error)})
        return replace(_without(book, intent), limits=book.limits.after_fault(error.refusal, now)), False

    def _elsewhere(self, book: Book, intent: Intent, *, is_new: bool) -> Book:
        """Return the book with the intent moved to the next free place, or given up where there is none."""
        blocked = book.limits.blocked_until(self.candidates, self.clock())
        place = next_place(self.candidates, blocked, book.serial)
        if place is None:
            return book if is_new else _without(book, intent)
        if is_new:
            return self._with_new(book, replace(intent, pair=place, attempt=0, ids=(), answered_at=None))
        return _with(book, replace(intent, pair=place, attempt=intent.attempt + 1))

    def _with_new(self, book: Book, intent: Intent) -> Book:
        serial = book.serial + 1
        named = replace(intent, launch=f"{self.fleet}-{book.lease.epoch}-{serial}")
        return replace(book, serial=serial, intents=(*book.intents, named))


def _with(book: Book, intent: Intent) -> Book:
    return replace(book, intents=tuple(intent if one.launch == intent.launch else one for one in book.intents))


def _without(book: Book, intent: Intent) -> Book:
    return replace(book, intents=tuple(one for one in book.intents if one.launch != intent.launch))
