"""The gate `sentinels`: signs of a success by something else than skill. Any of them holds the promotion for a person.

It looks at what the gate `improvement` played, replays the candidate's successes in fresh sandbox processes, and has
the candidate play tasks that cannot be solved. `evaluation/sentinels/` has the signs, one per file.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.replays import known_solutions, replayed
from evaluation.rollouts import Rollout
from evaluation.sentinels.facts import Facts
from evaluation.sentinels.watch import watch
from evaluation.settings import GateSettings, SentinelSettings

SENTINELS = "sentinels"


class Sentinels:
    """The gate `sentinels`."""

    name: ClassVar[str] = SENTINELS
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings.sentinels

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises `SandboxError` when sandboxes cannot be started; single actions that fail there are judged."""
        if not evidence.pairs:
            return judged(Facts(()), self._settings)
        pool = evidence.arena.pool
        deterministic = (await pool.describe()).capabilities.deterministic
        solutions = await known_solutions(pool, [pair.task for pair in evidence.pairs])
        facts = Facts(
            pairs=tuple(evidence.pairs),
            solutions=solutions,
            replays=await self._replays(evidence, lambda place: evidence.pairs[place].candidate),
            champion_replays={}
            if deterministic
            else await self._replays(evidence, lambda place: evidence.pairs[place].champion),
            unsolvable=await evidence.arena.play(evidence.tasks.unsolvable, evidence.candidate.served),
            deterministic=deterministic,
        )
        return judged(facts, self._settings)

    async def _replays(self, evidence: Evidence, side: Callable[[int], Rollout]) -> Mapping[int, bool]:
        """Replay the successes of a side, wins and losses first: they decide."""
        places = [place for place in range(len(evidence.pairs)) if side(place).success]
        pairs = evidence.pairs
        places.sort(key=lambda place: not (pairs[place].is_win or pairs[place].is_loss))
        again = await replayed(
            evidence.arena.pool,
            [(pairs[place].task, side(place)) for place in places],
            self._settings.own_process,
            lambda done, total: evidence.progress(self.name, done, total),
        )
        return dict(zip(places, again, strict=True))


def judged(facts: Facts, settings: SentinelSettings) -> GateResult:
    """HOLD where a bound is exceeded, with a sentence for each; without any pair nothing was looked at."""
    found = watch(facts, settings)
    if not facts.pairs:
        verdict, reason = Verdict.INCONCLUSIVE, "No task was played by both sides, so there was nothing to look at."
    elif found.hits:
        verdict, reason = Verdict.HOLD, " ".join(found.hits)
    else:
        verdict, reason = Verdict.PROMOTE, f"Nothing about its play is odd{_unlooked(facts)}."
    return GateResult(gate=SENTINELS, verdict=verdict, reason=reason, figures=dict(found.figures))


def _unlooked(facts: Facts) -> str:
    """The parts that were not there to be looked at."""
    missing = []
    if not facts.unsolvable:
        missing.append("tasks that cannot be solved (S1)")
    if not facts.solutions:
        missing.append("known solutions (S3)")
    return f"; the environment has no {' and no '.join(missing)}, so these were not looked at" if missing else ""
