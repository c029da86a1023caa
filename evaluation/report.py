"""The report of a gate, for machines (`gate.json`) and for people (`report.md`).

The learner writes both after each gate.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import PlainSerializer

from evaluation.gates.significance import Evaluation, Verdict
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings
from evaluation.statistics import Interval, wilson_interval
from streams.events import Action
from streams.messages import Message
from streams.runtime.files import write_atomically
from streams.settings import FrozenModel

GATE_FILE = "gate.json"
REPORT_FILE = "report.md"


def _without_nulls(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True)


# In reports of before an action was a text; they are read too.
Taken: TypeAlias = tuple[Annotated[Action, PlainSerializer(_without_nulls)], ...]


class Side(FrozenModel):
    """Results of one served model on a list of tasks. `success` has a 95% Wilson interval from `low` to `high`.

    `invalid_actions` is the share of its actions that the environment did not understand.
    """

    model: str
    tasks: int
    success: float
    low: float
    high: float
    mean_score: float
    mean_steps: float
    invalid_actions: float

    @classmethod
    def of(cls, model: str, rollouts: Sequence[Rollout]) -> Self:
        """Sum up rollouts, of which there must be one at least."""
        tasks = len(rollouts)
        successes = sum(rollout.success for rollout in rollouts)
        interval: Interval = wilson_interval(successes, tasks)
        steps = sum(rollout.steps for rollout in rollouts)
        return cls(
            model=model,
            tasks=tasks,
            success=successes / tasks,
            low=interval.low,
            high=interval.high,
            mean_score=sum(rollout.score for rollout in rollouts) / tasks,
            mean_steps=steps / tasks,
            invalid_actions=sum(rollout.invalid_actions for rollout in rollouts) / max(1, steps),
        )


class TaskRow(FrozenModel):
    """One task, played by both."""

    task_id: str
    champion_success: bool
    candidate_success: bool
    champion_score: float
    candidate_score: float
    champion_actions: Taken
    candidate_actions: Taken


class Comparison(FrozenModel):
    """Both sides on one list of tasks. Only the gate's own list decides; others are told for their interest."""

    champion: Side
    candidate: Side
    tasks: tuple[TaskRow, ...]

    @classmethod
    def of(cls, champion: str, candidate: str, by_champion: Sequence[Rollout], by_candidate: Sequence[Rollout]) -> Self:
        candidates = {rollout.task_id: rollout for rollout in by_candidate}
        rows = []
        for one in by_champion:
            other = candidates[one.task_id]
            rows.append(
                TaskRow(
                    task_id=one.task_id,
                    champion_success=one.success,
                    candidate_success=other.success,
                    champion_score=one.score,
                    candidate_score=other.score,
                    champion_actions=one.actions,
                    candidate_actions=other.actions,
                )
            )
        return cls(
            champion=Side.of(champion, by_champion), candidate=Side.of(candidate, by_candidate), tasks=tuple(rows)
        )


class GateReport(FrozenModel):
    """The content of `gate.json`. Probabilities are one-sided p-values of McNemar's exact test."""

    verdict: Verdict
    reason: str
    wins: int
    losses: int
    ties: int
    p_better: float
    p_worse: float
    settings: GateSettings
    held_out: Comparison
    out_of_domain: Comparison | None = None

    @classmethod
    def of(cls, evaluation: Evaluation, settings: GateSettings, out_of_domain: Comparison | None = None) -> Self:
        decision = evaluation.decision
        return cls(
            verdict=decision.verdict,
            reason=decision.reason,
            wins=decision.wins,
            losses=decision.losses,
            ties=decision.ties,
            p_better=decision.p_better,
            p_worse=decision.p_worse,
            settings=settings,
            held_out=Comparison.of(
                evaluation.champion, evaluation.candidate, evaluation.champion_rollouts, evaluation.candidate_rollouts
            ),
            out_of_domain=out_of_domain,
        )

    def write(self, folder: Path) -> None:
        """Write `gate.json` and `report.md` into `folder`, each atomically."""
        write_atomically(folder / GATE_FILE, self.model_dump_json(indent=1).encode() + b"\n")
        write_atomically(folder / REPORT_FILE, self.to_markdown().encode())

    def to_markdown(self) -> str:
        """The report as people read it: why first, then the figures."""
        lines = [
            f"# {self.verdict.value}: {self.held_out.candidate.model} against {self.held_out.champion.model}",
            "",
            self.reason,
            "",
            "## Held-out tasks",
            "",
            *_table(self.held_out),
            "",
            f"Only the candidate solves {self.wins}, only the champion {self.losses}; on {self.ties} they agree. "
            "McNemar's exact one-sided test: if both were equally good, a result at least this favourable to the "
            f"candidate would come with probability p = {self.p_better:.3g}, and one at least this unfavourable with "
            f"p = {self.p_worse:.3g}; the gate asks for at most {self.settings.alpha:g} on at least "
            f"{self.settings.min_tasks} tasks.",
        ]
        if self.out_of_domain is not None:
            lines += [
                "",
                "## Out of domain",
                "",
                "Tasks of another fold, with objects that no training task has. They do not decide.",
                "",
                *_table(self.out_of_domain),
            ]
        return "\n".join([*lines, ""])


def _table(comparison: Comparison) -> list[str]:
    rows = [
        f"| {role} | {side.model} | {side.tasks} | {side.success:.3f} | {side.low:.3f} to {side.high:.3f} "
        f"| {side.mean_score:.3f} | {side.mean_steps:.1f} | {side.invalid_actions:.3f} |"
        for role, side in (("champion", comparison.champion), ("candidate", comparison.candidate))
    ]
    return [
        "| | model | tasks | success | 95% interval | mean score | mean actions | invalid actions |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
