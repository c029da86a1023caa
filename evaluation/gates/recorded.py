"""The gate `recorded`, for where there is no sandbox: both sides reply at states that production recorded.

It is weaker than playing: it says how often a candidate does what was trusted, not whether that reaches the goal. So it
alone never lets a candidate serve: what passes serves a share of the episodes first, and outcomes decide.

A state is one of a trusted episode on a held-out task. States of one task say the same thing several times, so a task
with its variants is the unit: a win is one on which the candidate does better, and wins and losses are compared by the
exact sign test, which is McNemar's.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluation.gates.gate import Competitor, Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.scored_replies import each
from evaluation.settings import GateSettings
from evaluation.statistics import mcnemar_exact
from learners.held_out_states import RecordedState
from ratchet_client.events import family
from ratchet_client.messages import Message, Tools
from streams.environments.harness import canonical
from streams.environments.tool_calls import calls_of
from streams.environments.tool_definitions import usable
from streams.errors import GateError, ToolCallError
from streams.policy.client import PolicyClient, Sampling
from streams.trust.holdout import Split

RECORDED = "recorded"
WEAKER = "Judged by recorded states and not by playing, which is weaker: a canary follows."


@dataclass(frozen=True, slots=True)
class Answer:
    """One side at one state. `likelihood` is the log-probability per token, in nats, of the trusted action."""

    agrees: bool
    valid: bool
    likelihood: float


@dataclass(frozen=True, slots=True)
class Answered:
    """Both sides at one state of `task_id`."""

    task_id: str
    champion: Answer
    candidate: Answer


@dataclass(frozen=True, slots=True)
class Signs:
    """The number of tasks on which the candidate does better and worse, and the p-values of the two directions."""

    wins: int
    losses: int

    @classmethod
    def of(cls, answers: Sequence[Answered], measure: Callable[[Answer], float]) -> "Signs":
        gains: dict[str, float] = defaultdict(float)
        for one in answers:
            gains[family(one.task_id)] += measure(one.candidate) - measure(one.champion)
        return cls(sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values()))

    @property
    def p_better(self) -> float:
        return mcnemar_exact(self.wins, self.losses)

    @property
    def p_worse(self) -> float:
        return mcnemar_exact(self.losses, self.wins)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of the recorded states."""

    agreement: Signs
    validity: Signs
    likelihood: Signs

    @classmethod
    def of(cls, answers: Sequence[Answered]) -> "Comparison":
        return cls(
            agreement=Signs.of(answers, lambda answer: answer.agrees),
            validity=Signs.of(answers, lambda answer: answer.valid),
            likelihood=Signs.of(answers, lambda answer: answer.likelihood),
        )


def is_valid(action: Message, tools: Tools) -> bool:
    """Return whether every call parses, names a tool that is offered, and has arguments that its schema takes.

    Without calls, an action is valid that says something.
    """
    if not action.calls:
        return bool(action.text.strip())
    offered = usable(tools)
    try:
        return all(call.name in offered and offered[call.name].takes(call.arguments) for call in calls_of(action))
    except ToolCallError:
        return False


def decide(found: Comparison, alpha: float) -> tuple[Verdict, str]:
    """`PROMOTE` where the candidate agrees significantly more with the trusted actions, and is worse in nothing.

    `REJECT` where it is significantly worse in agreement, in the validity of its calls, or in the likelihood that it
    gives to the trusted actions.
    """
    for name, signs in (
        ("agrees less with the trusted actions", found.agreement),
        ("makes more invalid replies", found.validity),
        ("finds the trusted actions less likely", found.likelihood),
    ):
        if signs.p_worse <= alpha:
            return Verdict.REJECT, (
                f"It {name} than the champion: worse on {signs.losses} tasks, better on {signs.wins} "
                f"(p = {signs.p_worse:.2g} ≤ {alpha:g})."
            )
    signs = found.agreement
    counts = f"more on {signs.wins} tasks and less on {signs.losses} (p = {signs.p_better:.2g}"
    if signs.p_better <= alpha:
        return Verdict.PROMOTE, f"It agrees with the trusted actions {counts} ≤ {alpha:g})."
    return Verdict.INCONCLUSIVE, f"It does not agree significantly more: {counts}, asked for {alpha:g})."


class Recorded:
    """The gate `recorded`."""

    name: ClassVar[str] = RECORDED
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises `GateError` where no canary would follow, and for too few tasks, before anything is asked."""
        settings = self._settings.recorded
        if not evidence.canary_share > 0:
            raise GateError(
                "recorded states prove too little without a canary: set serving.canary.share, or give a sandbox"
            )
        states = evidence.recorded[: settings.states]
        if foreign := [one.task_id for one in states if evidence.holdout.split(one.task_id) is Split.TRAIN]:
            raise GateError(f"the recorded states of {foreign[0]!r} belong to training: a gate asks at held-out ones")
        tasks = {family(state.task_id) for state in states}
        if len(tasks) < settings.min_tasks:
            raise GateError(
                f"{len(tasks)} held-out tasks with trusted episodes are too few for a verdict: the gate asks for "
                f"{settings.min_tasks}"
            )
        sides: list[list[Answer | None]] = []
        for number, side in enumerate((evidence.champion, evidence.candidate)):

            def report(done: int, before: int = number * len(states)) -> None:
                evidence.progress(self.name, before + done, 2 * len(states))

            sides.append(await self._side(evidence.arena.policy, side, states, report))
        answers = [
            Answered(state.task_id, champion, candidate)
            for state, champion, candidate in zip(states, *sides, strict=True)
            if champion is not None and candidate is not None
        ]
        found = Comparison.of(answers)
        verdict, reason = decide(found, evidence.alpha)
        return GateResult(
            gate=self.name,
            verdict=verdict,
            reason=f"{reason} {WEAKER}",
            figures={
                "sandbox": False,
                "tasks": len(tasks),
                "states": len(answers),
                "excluded": len(states) - len(answers),
                "by_champion": sum(state.adapter == evidence.champion.served for state in states),
                "wins": found.agreement.wins,
                "losses": found.agreement.losses,
                "p_better": found.agreement.p_better,
                "p_worse": found.agreement.p_worse,
                "p_less_valid": found.validity.p_worse,
                "p_less_likely": found.likelihood.p_worse,
                **_means("champion", [answer.champion for answer in answers]),
                **_means("candidate", [answer.candidate for answer in answers]),
            },
        )

    async def _side(
        self, policy: PolicyClient, side: Competitor, states: Sequence[RecordedState], done: Callable[[int], None]
    ) -> list[Answer | None]:
        sampling = Sampling(max_tokens=self._settings.recorded.max_tokens)

        async def answer(state: RecordedState) -> Answer:
            (reply,) = await policy.chat(side.served, state.messages, sampling, tools=state.tools)
            chat = (*state.messages, state.action)
            logprobs = await policy.action_logprobs(side.served, chat, state.tools)
            return Answer(
                agrees=canonical(reply.message) == canonical(state.action),
                valid=is_valid(reply.message, state.tools),
                likelihood=sum(logprobs) / max(1, len(logprobs)),
            )

        return await each(states, answer, self._settings.rollouts.concurrency, done)


def _means(side: str, answers: Sequence[Answer]) -> dict[str, float]:
    count = max(1, len(answers))
    return {
        f"{side}_agreement": sum(answer.agrees for answer in answers) / count,
        f"{side}_valid": sum(answer.valid for answer in answers) / count,
        f"{side}_likelihood": sum(answer.likelihood for answer in answers) / count,
    }
