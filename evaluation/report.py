"""The report of a trial, for machines (`gate.json`) and for people (`report.md`).

The learner writes both after each trial.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import ConfigDict, PlainSerializer, ValidationError, model_validator

from evaluation.agreement import ASSUMED_FLIPS, ASSUMED_PHI, Agreement, overstatement
from evaluation.gates.gate import Evidence
from evaluation.gates.improvement import IMPROVEMENT
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair, Rollout
from evaluation.settings import GateSettings
from evaluation.statistics import Interval, wilson_interval
from ratchet_client.events import Action
from ratchet_client.messages import Message, escaped
from ratchet_client.settings import FrozenModel
from streams.errors import GateError
from streams.runtime.files import write_atomically

GATE_FILE = "gate.json"
REPORT_FILE = "report.md"


def _without_nulls(message: Message) -> dict[str, Any]:
    return escaped(message).model_dump(mode="json", exclude_none=True)


# Whatever an environment gave as a score, the report can be read back: what is not a number is written as `"NaN"`.
_ODD_SCORES = ConfigDict(ser_json_inf_nan="strings")

# In reports of before an action was a text; they are read too.
Taken: TypeAlias = tuple[Annotated[Action, PlainSerializer(_without_nulls)], ...]


class Side(FrozenModel):
    """Results of one served model on a list of tasks. `success` has a 95% Wilson interval from `low` to `high`.

    `invalid_actions` is the share of its actions that the environment did not understand.
    """

    model_config = _ODD_SCORES

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

    model_config = _ODD_SCORES

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
    def of(cls, champion: str, candidate: str, pairs: Sequence[Pair]) -> Self | None:
        """Sum up `pairs` of these served names; None where there are none."""
        if not pairs:
            return None
        return cls(
            champion=Side.of(champion, [pair.champion for pair in pairs]),
            candidate=Side.of(candidate, [pair.candidate for pair in pairs]),
            tasks=tuple(
                TaskRow(
                    task_id=pair.task.task_id,
                    champion_success=pair.champion.success,
                    candidate_success=pair.candidate.success,
                    champion_score=pair.champion.score,
                    candidate_score=pair.candidate.score,
                    champion_actions=pair.champion.actions,
                    candidate_actions=pair.candidate.actions,
                )
                for pair in pairs
            ),
        )


class GateReport(FrozenModel):
    """The content of `gate.json`: the verdict on a candidate, what each gate said, and what was played.

    `held_out` is None where no task was played to its end by both. Of its tasks `fresh_tasks` were played by no trial
    before, and `earlier_trials` played some of the list; None in reports of before that was counted. `flips` are plays
    of one adapter with itself, of all gates and A/A runs before.
    """

    verdict: Verdict
    reason: str
    gates: tuple[GateResult, ...]
    settings: GateSettings
    held_out: Comparison | None
    out_of_domain: Comparison | None = None
    fresh_tasks: int | None = None
    flips: Agreement | None = None
    earlier_trials: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_one_gate(cls, given: Any) -> Any:
        """Reports of before there were several gates have that one's figures at their top."""
        if not isinstance(given, dict) or "gates" in given:
            return given
        names = ("wins", "losses", "ties", "p_better", "p_worse")
        figures = {name: given[name] for name in names if name in given}
        rest = {name: value for name, value in given.items() if name not in names}
        only = {"gate": IMPROVEMENT, "verdict": rest.get("verdict"), "reason": rest.get("reason"), "figures": figures}
        return {**rest, "gates": (only,)}

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        verdict: Verdict,
        reason: str,
        settings: GateSettings,
        out_of_domain: Comparison | None = None,
        flips: Agreement | None = None,
    ) -> Self:
        """The report of a trial that ended with `verdict`."""
        return cls(
            verdict=verdict,
            reason=reason,
            gates=tuple(evidence.results),
            settings=settings,
            held_out=Comparison.of(evidence.champion.served, evidence.candidate.served, evidence.pairs),
            out_of_domain=out_of_domain,
            fresh_tasks=sum(pair.task.task_id in evidence.tasks.unplayed() for pair in evidence.pairs),
            earlier_trials=evidence.tasks.played,
            flips=flips,
        )

    def agreement(self) -> Agreement:
        """Return how far champion and candidate agree on the held-out tasks."""
        rows = self.held_out.tasks if self.held_out is not None else ()
        return Agreement.of((row.champion_success, row.candidate_success) for row in rows)

    def result(self, gate: str) -> GateResult | None:
        """Return what the gate of that name returned; None where it was passed over."""
        return next((result for result in self.gates if result.gate == gate), None)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The report in the folder of an adapter; None where there is none. Raises `GateError` for a damaged one."""
        path = folder / GATE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise GateError(
                f"{path} is not a gate report: {error.error_count()} fields are wrong. Restore it from a backup."
            ) from error

    def write(self, folder: Path) -> None:
        """Write `gate.json` and `report.md` into `folder`, each atomically."""
        write_atomically(folder / GATE_FILE, self.model_dump_json(indent=1).encode() + b"\n")
        write_atomically(folder / REPORT_FILE, self.to_markdown().encode())

    def to_markdown(self) -> str:
        """The report as people read it: why first, then the figures."""
        lines = [f"# {self.verdict.value}", "", self.reason, ""]
        for result in self.gates:
            figures = [f"- {name.replace('_', ' ')}: {_figure(value)}" for name, value in result.figures.items()]
            lines += [f"## Gate {result.gate}: {result.verdict.value}", "", result.reason, "", *figures, ""]
        if self.held_out is not None:
            lines += ["## Held-out tasks", "", self._selected_on(), "", *_table(self.held_out), ""]
            lines += [*_measured(self.agreement(), self.flips), ""]
        if self.out_of_domain is not None:
            lines += [
                "## Out of domain",
                "",
                "Tasks of another fold, with objects that no training task has. They do not decide.",
                "",
                *_table(self.out_of_domain),
                "",
            ]
        return "\n".join(lines)

    def _selected_on(self) -> str:
        """A warning of success that has selected, which must not be quoted."""
        told = "These tasks select candidates, so their success rates overstate what is promoted: do not quote them."
        if self.fresh_tasks is None or self.earlier_trials is None or self.held_out is None:
            return told
        tasks = len(self.held_out.tasks)
        most = overstatement(tasks, self.earlier_trials + 1, 1, self.agreement().discordance or 0.0)
        return (
            f"{told} By {100 * most:.0f} points at most, with a probability of 95%. "
            f"{self.earlier_trials} earlier trials played tasks of this list; {self.fresh_tasks} of these "
            f"{tasks} tasks were played for the first time. What is not selected on: success on fresh tasks, in the "
            "figures of the gate no_forgetting, and the tasks out of domain."
        )


def _measured(agreement: Agreement, flips: Agreement | None) -> list[str]:
    """Return what the plan of the gates assumes, beside what this one measured."""
    phi = "not defined" if agreement.phi is None else f"{agreement.phi:.2f}"
    flipped = "was not measured yet"
    if flips is not None and flips.discordance is not None:
        flipped = f"differed from itself on {flips.discordance:.1%} of {flips.tasks} tasks"
    return [
        f"Correlation of the two sides (phi): {phi}, assumed {ASSUMED_PHI}. Tasks that only one of them solved: "
        f"{agreement.discordant} of {agreement.tasks}. One adapter that is played twice {flipped}, assumed "
        f"{ASSUMED_FLIPS:.0%}.",
    ]


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
