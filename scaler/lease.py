"""One leader among several scalers, by conditional writes alone: the book's ETag is the lease.

A lease is taken only after the same ETag has stood for 1.5 times its life on the taker's own monotonic clock, so no two
clocks are ever compared. Each write of the leader renews it; who cannot write does not act.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from irs.errors import StorageUnavailable
from scaler.book import Book, LeaseFacts
from scaler.store import Conflict, Store, Stored

log = logging.getLogger(__name__)

#: Clocks may run at rates that differ by half before two could lead.
WATCH = 1.5
_TRIES = 3


class Lease:
    """This process's part in the chain of writes.

    Args:
        nonce: gives a fresh text for each taking of the lease.
        clock: monotonic seconds.
    """

    def __init__(self, store: Store, *, holder: str, ttl_s: float, nonce: Callable[[], str], clock: Callable[[], float]) -> None:
        self.ttl_s = ttl_s
        self.other = LeaseFacts()
        self._store, self._holder, self._make_nonce, self._clock = store, holder, nonce, clock
        self._facts = LeaseFacts()
        self._etag: str | None = None
        self._valid_until: float | None = None
        self._watched: tuple[str, float] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that this process leads, or led last."""
        return self._facts.epoch

    def is_valid(self) -> bool:
        """Return whether this process may act now: its last renewal was sent less than the lease's life ago."""
        return self._valid_until is not None and self._clock() < self._valid_until

    def acquire(self) -> tuple[Book, bool] | None:
        """Take the lease if it is free; return the book that was found and whether there was one, else None.

        Raises:
            StorageUnavailable: the store cannot be read.
        """
        self._valid_until = None
        stored = self._store.read(self._clock())
        # Taken after the answer: the write that made this ETag was earlier, so the wait is rather too long.
        seen_at = self._clock()
        if stored is None:
            return self._take(Book(), None)
        self.other = stored.book.lease
        if not self._is_free(stored, seen_at):
            return None
        return self._take(stored.book, stored.etag)

    def write(self, book: Book) -> bool:
        """Store the book and renew the lease; return whether this process still leads and the book is stored.

        False while the store does not answer: then nothing that the book announces may be done.
        """
        for _ in range(_TRIES):
            if not self.is_valid():
                return False
            self._facts = replace(self._facts, seq=self._facts.seq + 1)
            sent_at = self._clock()
            outcome = self._put(replace(book, lease=self._facts), sent_at)
            if outcome is None:
                return False
            if outcome:
                self._valid_until = sent_at + self.ttl_s
                return True
        return False

    def release(self, book: Book) -> None:
        """Give the lease up, so that a successor may take it at once; at worst it runs out by itself."""
        if self.is_valid():
            facts = replace(self._facts, holder="", seq=self._facts.seq + 1, ttl_s=0.0)
            try:
                self._store.write(replace(book, lease=facts), self._etag, self._clock())
            except (Conflict, StorageUnavailable) as error:
                log.warning("lease not released", extra={"reason": str(error)})
        self._valid_until = None

    def _is_free(self, stored: Stored, seen_at: float) -> bool:
        facts = stored.book.lease
        if facts.ttl_s == 0 and stored.is_readable:
            return True
        if facts.nonce and facts.nonce == self._facts.nonce:
            # Our own, run out: nobody has written since, so nobody else leads.
            return True
        if self._watched is None or self._watched[0] != stored.etag:
            self._watched = (stored.etag, seen_at)
        return seen_at - self._watched[1] >= WATCH * max(self.ttl_s, facts.ttl_s)

    def _take(self, found: Book, etag: str | None) -> tuple[Book, bool] | None:
        self._facts = LeaseFacts(
            holder=self._holder, nonce=self._make_nonce(), epoch=found.lease.epoch + 1, seq=0, ttl_s=self.ttl_s
        )
        self._etag = etag
        sent_at = self._clock()
        # A new epoch counts its launches anew.
        book = replace(found, lease=self._facts, serial=0)
        if not self._put(book, sent_at):
            return None
        self._valid_until = sent_at + self.ttl_s
        log.info("lead", extra={"epoch": self.epoch, "holder": self._holder})
        return book, etag is not None

    def _put(self, book: Book, now: float) -> bool | None:
        """Write; return True when it is stored, False when it may be tried again, None when it is lost or unknown."""
        try:
            self._etag = self._store.write(book, self._etag, now)
            return True
        except (Conflict, StorageUnavailable) as error:
            return self._settle(error)

    def _settle(self, error: Exception) -> bool | None:
        """Find out what became of the last write: a lost answer is no lost lease."""
        try:
            stored = self._store.read(self._clock())
        except StorageUnavailable:
            log.warning("book not stored", extra={"reason": str(error)})
            return None
        if stored is None:
            # Someone deleted the book: whoever creates it first leads.
            self._lose("the book is gone")
            return None
        if stored.book.lease.nonce != self._facts.nonce:
            self.other = stored.book.lease
            self._lose(f"{stored.book.lease.holder or 'another'} leads epoch {stored.book.lease.epoch}")
            return None
        self._etag = stored.etag
        return stored.book.lease.seq == self._facts.seq

    def _lose(self, why: str) -> None:
        if self._valid_until is not None:
            log.warning("lease lost", extra={"reason": why})
        self._valid_until = None
