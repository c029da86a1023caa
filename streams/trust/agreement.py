"""The agreement of a judge with verified outcomes, on the episodes that have both. Pure."""

from math import sqrt

from pydantic import Field

from ratchet_client.settings import FrozenModel

_Z = 1.959963984540054  # of 95%


class Agreement(FrozenModel):
    """Counts of episodes by what the judge and the verified outcomes say, and the figures that follow from them."""

    both_success: int = 0
    only_judge: int = Field(default=0, description="The judge says success, the verified outcomes do not.")
    only_verified: int = Field(default=0, description="The verified outcomes say success, the judge does not.")
    both_failure: int = 0

    @property
    def episodes(self) -> int:
        return self.both_success + self.only_judge + self.only_verified + self.both_failure

    @property
    def accuracy(self) -> float | None:
        """The share of episodes on which they agree."""
        return (self.both_success + self.both_failure) / self.episodes if self.episodes else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy (Wilson 1927)."""
        n = self.episodes
        if self.accuracy is None:
            return 0.0, 1.0
        middle = (self.accuracy + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * sqrt(self.accuracy * (1 - self.accuracy) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960): 1 is perfect, 0 chance; None where chance alone would agree on all.

        >>> Agreement(both_success=20, only_judge=5, only_verified=10, both_failure=15).kappa
        0.4
        """
        n = self.episodes
        if self.accuracy is None:
            return None
        judged, verified = self.both_success + self.only_judge, self.both_success + self.only_verified
        chance = (judged * verified + (n - judged) * (n - verified)) / n**2
        return None if chance == 1 else round((self.accuracy - chance) / (1 - chance), 12)

    def words(self) -> str:
        """The figures as a sentence."""
        if self.accuracy is None:
            return "no episode has a verified outcome too"
        low, high = self.interval
        kappa = "not defined" if self.kappa is None else f"{self.kappa:.2f}"
        told = f"agrees on {self.accuracy:.0%} of {self.episodes} episodes"
        return f"{told} (95% interval {low:.0%} to {high:.0%}), Cohen's kappa {kappa}"
