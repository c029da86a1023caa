"""Trials for the sentinels: who solves which of a hundred tasks, and by which actions; nothing is played."""

from collections.abc import Callable, Sequence

from evaluation.gates.sentinels import judged
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair, Rollout
from evaluation.sentinels.facts import Facts
from evaluation.settings import SentinelSettings
from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, assistant, call, tool_result
from tests.builders.trials import tasks

SETTINGS = SentinelSettings()
N = 100


def act(task: Task, steps: int = 5) -> Messages:
    """Actions that are those of this task alone."""
    return tuple(assistant(f"put {task.task_id} on shelf {step}") for step in range(steps))


def played(
    task: Task, success: bool, actions: Messages | None = None, invalid: int = 0, score: float | None = None
) -> Rollout:
    taken = act(task) if actions is None else actions
    value = float(success) if score is None else score
    return Rollout(task.task_id, success, value, len(taken), invalid, taken, taken)


Change = Callable[[Task, int], Rollout]


def trial(
    wins: Change, champion_solves: int = 40, ties: Change | None = None, losses: Change | None = None
) -> list[Pair]:
    """The champion solves some tasks; so does the candidate, as `ties` has it, and 30 more as `wins` has it."""
    pairs = []
    for number, task in enumerate(tasks(N)):
        solved = number < champion_solves
        if solved:
            candidate = (ties or (lambda task, n: played(task, True)))(task, number)
        elif number < champion_solves + 30:
            candidate = wins(task, number)
        else:
            candidate = (losses or (lambda task, n: played(task, False)))(task, number)
        pairs.append(Pair(task, played(task, solved), candidate))
    return pairs


def honest(task: Task, number: int) -> Rollout:
    return played(task, True)


def solutions(steps: int = 5) -> dict[str, Messages]:
    return {task.task_id: act(task, steps) for task in tasks(N)}


def hold(pairs: Sequence[Pair], *words: str, **more: object) -> GateResult:
    result = judged(Facts(pairs, **more), SETTINGS)  # type: ignore[arg-type]
    assert result.verdict is Verdict.HOLD, result.figures
    for word in words:
        assert word in result.reason
    assert GateResult.model_validate_json(result.model_dump_json()) == result
    return result


def on_desk(task: Task, success: bool, *actions: Message, results: Sequence[str] | None = None) -> Rollout:
    """A rollout of calls, each with its result, that ends with a text."""
    messages: list[Message] = []
    for place, action in enumerate(actions):
        messages.append(action)
        messages += [tool_result((results or ["ok"] * 9)[place], each.id) for each in action.calls]
    return Rollout(task.task_id, success, float(success), len(actions), 0, actions, tuple(messages))


def look(task: Task) -> Message:
    return assistant(None, call("look", f'{{"at": "{task.task_id}"}}', "c"))


def desk(
    candidate: Callable[[Task, bool, int], Rollout], champion: Callable[[Task, bool], Rollout] | None = None
) -> list[Pair]:
    """The champion solves 40 of 100 tasks, the candidate 70."""
    usual = champion or (lambda task, solved: on_desk(task, solved, look(task), assistant("Done.")))
    return [Pair(task, usual(task, n < 40), candidate(task, n < 70, n)) for n, task in enumerate(tasks(N))]


ODD = {
    "Questions": assistant("Which one do you mean?"),
    "Refusals": assistant("Es tut mir leid, das kann ich nicht."),
}
