"""The demo's amounts, its report, and the conditions that the report must satisfy."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict
from rich.console import Group
from rich.table import Table

from daemon.registry.schemas import CycleReport
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair
from learners.settings import PracticeSettings, Stage, practised_stage
from ratchet_client.settings import FrozenModel

PROVEN_GAIN = 0.15
# Of each of a demo's three gates, which together promote wrongly with a probability of at most 0.05 (Bonferroni).
FULL_ALPHA = 0.05 / 3
QUICK_ALPHA = 0.3
# What a quick demo, whose gates play few tasks, leaves unproven.
QUICK_UNPROVEN = (
    "that anything was learned: its gates play 12 tasks at most, and each promotes wrongly with probability "
    f"{QUICK_ALPHA}; those of a full demo together spend 0.05",
    "how the model does out of domain",
)


def practising(tasks: int, samples: int, most_seconds: float, updates: int) -> PracticeSettings:
    """Practice in rounds of so many tasks, and so many updates on what succeeded. Nobody else asks the model then."""
    return PracticeSettings(
        enabled=True,
        tasks=tasks,
        samples=samples,
        most_seconds=most_seconds,
        concurrency=8,
        stages=(practised_stage(updates),),
        learning_rate=1e-3,
    )


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Amounts. `held_out` and `out_of_domain` bound the tasks that are played there, `unseen` those in the end.

    `learning_rate` is of the first cycle: after 36 updates on 48 demonstrations the embedded model solved 39 of 96
    tickets of the support desk with it, and 4 with the default. A later cycle has that of `practice`.

    Before the second cycle what serves practises a round; the cycle has the stages of `practice`, less what has nothing
    to learn from. `alpha` is the error probability of each gate. An installation has no last gate and spends less at
    each (docs/gates.md).
    """

    seed: int
    demonstrations: int
    first_plays: int
    plays: int
    held_out: int
    out_of_domain: int
    unseen: int
    first_cycle: tuple[Stage, ...]
    practice: PracticeSettings
    learning_rate: float = 4e-3
    alpha: float = FULL_ALPHA
    unproven: tuple[str, ...] = ()


class EventCounts(FrozenModel):
    """`produced` comes from the broker's end offsets, the others from the store. `practice` of those stored are its."""

    produced: int
    stored: int
    practice: int
    lost: int
    duplicated: int


class DemoBranchCounts(FrozenModel):
    """Alternatives asked for, run in a sandbox, and dropped because their state could not be restored."""

    requested: int
    executed: int
    diverged: int


class CaptureCounts(FrozenModel):
    """Calls that the agent made of the gateway, and what became of them.

    `calls` is the agent's own count, `stored` the steps that came of them. Of their `episodes`, `trusted` may be
    learned from. `branched` counts the states, and the failed episodes, that a sandbox brought back as they were
    recorded, `mismatches` those that it did not.
    """

    calls: int
    stored: int
    lost: int
    episodes: int
    trusted: int
    branched: int
    mismatches: int


class PracticeLine(FrozenModel):
    """Episodes that what served practised before a cycle, and how many succeeded."""

    episodes: int
    successes: int


NO_PRACTICE = PracticeLine(episodes=0, successes=0)


class CycleLine(FrozenModel):
    """A cycle. Successes are shares of the held-out tasks that both sides played."""

    adapter: str
    verdict: Verdict
    champion_success: float | None
    candidate_success: float | None
    tasks: int
    gates: tuple[GateResult, ...]
    seconds: float
    own_episodes: int
    recoveries: int
    branches: int
    practice: PracticeLine

    @classmethod
    def of(
        cls, report: CycleReport, own_episodes: int, recoveries: int, branches: int, practice: PracticeLine
    ) -> "CycleLine":
        return cls(
            **report.model_dump(exclude={"cycle", "champion", "reason", "evidence"}),
            own_episodes=own_episodes,
            recoveries=recoveries,
            branches=branches,
            practice=practice,
        )


class RollbackLine(FrozenModel):
    """Served names. `answered_before` and `answered_after` are the models that the agent's replies named."""

    from_: str
    to: str
    seconds: float
    answered_before: tuple[str, ...]
    answered_after: tuple[str, ...]

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"), populate_by_name=True)


class OutOfDomain(FrozenModel):
    """Success of the first and the last champion on a fold with objects that no training task has."""

    tasks: int
    first_success: float
    last_success: float


class Unseen(FrozenModel):
    """Success of the base model and of the last champion on tasks that neither training nor a gate had met.

    `only_first` are the tasks that the base model alone solves, `only_last` those that the champion alone does.
    """

    tasks: int
    first_success: float
    last_success: float
    only_first: int
    only_last: int

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "Unseen | None":
        """Sum up `pairs`, whose champion is the base model; None where there are none."""
        if not pairs:
            return None
        return cls(
            tasks=len(pairs),
            first_success=sum(pair.champion.success for pair in pairs) / len(pairs),
            last_success=sum(pair.candidate.success for pair in pairs) / len(pairs),
            only_first=sum(pair.is_loss for pair in pairs),
            only_last=sum(pair.is_win for pair in pairs),
        )

    @property
    def gain(self) -> float:
        return self.last_success - self.first_success


class DemoReport(FrozenModel):
    """The content of `report.json`. Success in cycles is a share of held-out tasks; seconds are wall-clock.

    `unseen` is None where nothing was promoted.
    `captured` is of a scenario whose agent publishes no events.
    """

    seed: int
    events: EventCounts
    branches: DemoBranchCounts
    cycles: tuple[CycleLine, ...]
    unseen: Unseen | None
    out_of_domain: OutOfDomain | None
    sabotage_verdict: Verdict
    rollback: RollbackLine | None
    wall_seconds: float
    scenario: str
    captured: CaptureCounts | None = None

    def failures(self, plan: DemoPlan) -> list[str]:
        """The promises of the plan that the report does not show."""
        checks = {
            f"{self.events.lost} events were lost": self.events.lost == 0,
            f"{self.events.duplicated} events were stored twice": self.events.duplicated == 0,
            "no alternative was executed": self.branches.executed > 0,
            "an adapter with noise on its weights was promoted": self.sabotage_verdict is not Verdict.PROMOTE,
        }
        if (captured := self.captured) is not None:
            checks |= {
                f"{captured.lost} captured calls are not stored": captured.lost == 0,
                "no episode of captured calls is trusted": captured.trusted > 0 or bool(plan.unproven),
                "no state of a captured call was branched": captured.branched > 0,
            }
        later = self.cycles[1:]
        checks["a later cycle had no practice episode"] = all(cycle.practice.episodes > 0 for cycle in later)
        if self.rollback is not None:
            answered = ", ".join(self.rollback.answered_after)
            checks[f"after the rollback {answered} answered"] = self.rollback.answered_after == (self.rollback.to,)
        if not plan.unproven:
            gain = self.unseen.gain if self.unseen else 0.0
            checks |= {
                "no candidate was promoted": any(cycle.verdict is Verdict.PROMOTE for cycle in self.cycles),
                f"success on unseen tasks rose by {gain:.3f} only": gain >= PROVEN_GAIN,
                "the last cycle had no episode of the agent's own": self.cycles[-1].own_episodes > 0,
                "no practice episode succeeded": any(cycle.practice.successes > 0 for cycle in later),
            }
        return [failure for failure, shown in checks.items() if not shown]

    def table(self) -> Group:
        """The report for people."""
        cycles = Table(
            "cycle",
            "adapter",
            "verdict",
            "champion",
            "candidate",
            "tasks",
            "gates",
            "own episodes",
            "recoveries",
            "practised, succeeded",
            "seconds",
        )
        for number, cycle in enumerate(self.cycles, 1):
            cycles.add_row(
                *(str(number), cycle.adapter[:12], cycle.verdict.value),
                *(_share(cycle.champion_success), _share(cycle.candidate_success), str(cycle.tasks)),
                ", ".join(f"{result.gate} {result.verdict.value}" for result in cycle.gates),
                *(str(cycle.own_episodes), str(cycle.recoveries)),
                *(f"{cycle.practice.episodes}, {cycle.practice.successes}", f"{cycle.seconds:.0f}"),
            )
        facts = Table(show_header=False)
        events, branches, rollback = self.events, self.branches, self.rollback
        facts.add_row("events produced, stored", f"{events.produced}, {events.stored}")
        facts.add_row("of these, of practice", str(events.practice))
        facts.add_row("events lost, duplicated", f"{events.lost}, {events.duplicated}")
        if (captured := self.captured) is not None:
            facts.add_row("calls made, captured and stored", f"{captured.calls}, {captured.stored}")
            facts.add_row("their episodes, trusted", f"{captured.episodes}, {captured.trusted}")
            facts.add_row("their states branched, mismatches", f"{captured.branched}, {captured.mismatches}")
        facts.add_row("alternatives run, diverged", f"{branches.executed}, {branches.diverged}")
        if self.unseen is not None:
            seen = self.unseen
            facts.add_row(f"{seen.tasks} unseen tasks, success", f"{seen.first_success:.3f} → {seen.last_success:.3f}")
            facts.add_row("solved by the base, the champion alone", f"{seen.only_first}, {seen.only_last}")
        if self.out_of_domain is not None:
            other = self.out_of_domain
            facts.add_row(
                f"out of domain, {other.tasks} tasks", f"{other.first_success:.3f} → {other.last_success:.3f}"
            )
        facts.add_row("adapter damaged on purpose", self.sabotage_verdict.value)
        facts.add_row(
            "rollback",
            f"{rollback.from_} → {rollback.to} in {rollback.seconds:.2f} s" if rollback else "nothing was promoted",
        )
        facts.add_row("wall-clock time", f"{self.wall_seconds / 60:.1f} min")
        return Group(cycles, facts)


def _share(success: float | None) -> str:
    return "none" if success is None else f"{success:.3f}"
