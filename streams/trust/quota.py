"""Limits on how many trusted episodes may be of one principal, or near-duplicates of each other.

Pure; the store asks it.

A few hundred documents poison a model of any size (Souly et al. 2025), so the limits are absolute counts, not shares.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.trust.settings import QuotaSettings
from streams.trust.simhash import distances

WINDOW = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Admitted:
    """An episode that became trusted. `at` is the store's clock, for an agent's could say anything."""

    principal: str
    similarity_hash: int
    at: datetime


class Quota:
    """A window over what was admitted. Ask `refusal`, then call `admit`, then `commit` or `rollback`."""

    def __init__(self, settings: QuotaSettings, recent: Iterable[Admitted] = ()) -> None:
        """`recent` is what the store holds of the window, oldest first."""
        self._settings = settings
        self._window: deque[Admitted] = deque()
        # Those of the window, in one piece: each newly trusted episode is compared with all of them.
        self._hashes = array("Q")
        self._principals: Counter[str] = Counter()
        self._provisional = 0
        for admitted in recent:
            self.admit(admitted)
        self.commit()

    def refusal(self, candidate: Admitted) -> str | None:
        """Return the reason for which the candidate must not be trusted, or None."""
        past = 0
        while self._window and self._window[0].at <= candidate.at - WINDOW:
            self._principals[self._window.popleft().principal] -= 1
            past += 1
        del self._hashes[:past]
        if self._principals[candidate.principal] >= self._settings.per_principal:
            return f"quota: {self._settings.per_principal} episodes of the principal within {WINDOW}"
        bits = self._settings.similarity_hash_bits
        alike = int((distances(candidate.similarity_hash, self._hashes) <= bits).sum())
        if alike >= self._settings.near_duplicates:
            return f"flood: {alike} episodes nearly the same within {WINDOW}"
        return None

    def admit(self, admitted: Admitted) -> None:
        """Count it; it is provisional until `commit`."""
        self._window.append(admitted)
        self._hashes.append(admitted.similarity_hash)
        self._principals[admitted.principal] += 1
        self._provisional += 1

    def commit(self) -> None:
        """Keep what was admitted: its transaction is over."""
        self._provisional = 0

    def rollback(self) -> None:
        """Take back what was admitted since `commit`: its transaction failed."""
        for _ in range(self._provisional):
            self._principals[self._window.pop().principal] -= 1
            self._hashes.pop()
        self._provisional = 0
