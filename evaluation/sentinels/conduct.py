"""Rates of calls that fail, and of tasks in which the agent refuses, asks back, or calls no tool at all.

They come from production: models learned to write broken calls and to ask questions instead of acting. A refusal or a
question is not counted where the task's known solution has one too, and a task without calls not where that has none.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evaluation.rollouts import Pair, Rollout
from evaluation.sentinels.comparison import Count, paired_difference, rate, surely_more
from evaluation.sentinels.facts import Facts, Figure, Finding, odd_wins
from evaluation.sentinels.speech import asks, refuses, writes_broken_call
from evaluation.settings import SentinelSettings
from ratchet_client.messages import Message, Messages

_FAILED = ("error", "exception", "traceback", "fehler", "erreur", "invalid ", "unknown tool", "错误", "エラー")


@dataclass(frozen=True, slots=True)
class _Conduct:
    """`done` of `of` in a rollout: for tasks 1 or 0 of 1, for calls those that failed of all."""

    name: str
    of: str
    verb: str
    more: float
    most: float
    count: Callable[[Facts, Pair, Rollout], Count]


def conduct(facts: Facts, settings: SentinelSettings) -> Finding:
    figures: dict[str, Figure] = {}
    hits: list[str] = []
    for each in (
        _Conduct("tool_errors", "its calls", "fail", settings.more_tool_errors, settings.most_invalid, _tool_errors),
        _Conduct(
            "unreadable_calls",
            "the tasks",
            "are met by calls that cannot be read",
            settings.more_tool_errors,
            settings.most_unacting,
            _unreadable,
        ),
        _Conduct("refusals", "the tasks", "are refused", settings.more_refusals, settings.most_unacting, _refuses),
        _Conduct(
            "questions", "the tasks", "are met by a question", settings.more_questions, settings.most_unacting, _asks
        ),
        _Conduct(
            "inaction",
            "the tasks",
            "are answered without any call",
            settings.more_inaction,
            settings.most_unacting,
            _idles,
        ),
    ):
        found = _compared(facts, settings, each)
        figures |= found.figures
        hits += found.hits
    return Finding(figures, tuple(hits))


def _compared(facts: Facts, settings: SentinelSettings, conduct: _Conduct) -> Finding:
    candidate = [conduct.count(facts, pair, pair.candidate) for pair in facts.pairs]
    champion = [conduct.count(facts, pair, pair.champion) for pair in facts.pairs]
    own, other, hits = rate(candidate), rate(champion), []
    difference = paired_difference(facts.pairs, candidate, champion)
    rose = difference is not None and difference.exceeds(conduct.more, settings.z)
    label = conduct.name.replace("_", " ").capitalize()
    if rose and facts.champion_is_measure(settings):
        hits.append(
            f"{label}: {own:.1%} of {conduct.of} {conduct.verb}, with the champion {other:.1%} "
            f"(at most {conduct.more:.0%} more may)."
        )
    elif own is not None and own > conduct.most and (difference is None or difference.exceeds(0.0, settings.z)):
        hits.append(f"{label}: {own:.1%} of {conduct.of} {conduct.verb} (at most {conduct.most:.0%} may).")
    if not hits and facts.champion_is_measure(settings):
        hits += _among_failures(facts, settings, conduct, label)
    if conduct.of == "the tasks":
        hits += odd_wins(
            facts, settings, label, conduct.verb, lambda pair, rollout: conduct.count(facts, pair, rollout)[0] > 0
        )
    return Finding({conduct.name: own, f"champion_{conduct.name}": other}, tuple(hits))


def _among_failures(facts: Facts, settings: SentinelSettings, conduct: _Conduct, label: str) -> list[str]:
    """A hit where surely more of its failed tasks went that way than of the champion's.

    A candidate that fails less often, but more often so, does not stand out among all tasks.
    """
    own, other = (
        [2 * part > whole for part, whole in (conduct.count(facts, pair, rollout) for pair, rollout in failed)]
        for failed in (
            [(pair, pair.candidate) for pair in facts.pairs if not pair.candidate.success],
            [(pair, pair.champion) for pair in facts.pairs if not pair.champion.success],
        )
    )
    if not own or not other or sum(own) / len(own) - sum(other) / len(other) <= conduct.more:
        return []
    if not surely_more(sum(own), len(own), sum(other), len(other), settings.z):
        return []
    what = "are mostly calls that fail" if conduct.name == "tool_errors" else conduct.verb
    return [
        f"{label}: {sum(own)} of its {len(own)} failed tasks {what}, of the champion's {sum(other)} of {len(other)} "
        f"(at most {conduct.more:.0%} more may)."
    ]


def _tool_errors(facts: Facts, pair: Pair, rollout: Rollout) -> Count:
    """Calls that failed and all calls: by their results, or because they are none."""
    calls = sum(len(action.calls) for action in rollout.actions)
    broken = sum(not action.calls and writes_broken_call(action.text) for action in rollout.actions)
    failed = sum(message.role == "tool" and _is_error(message.text) for message in rollout.messages)
    # Where no conversation was kept, or the results do not say it, the environment has counted whole messages.
    failed = max(failed, min(rollout.invalid_actions, calls)) if facts.by_tools else failed
    return float(broken + failed), float(calls + broken)


def _unreadable(facts: Facts, pair: Pair, rollout: Rollout) -> Count:
    """Return whether most of its calls are none that anything could answer: their arguments are no JSON object.

    Untrained models make errors of other kinds, so that a rise tells even where the champion is no measure.
    """
    functions = [call.function for action in rollout.actions for call in action.calls]
    broken = sum(not action.calls and writes_broken_call(action.text) for action in rollout.actions)
    unreadable = broken + sum(function is None or not _is_object(function.arguments) for function in functions)
    return float(2 * unreadable > len(functions) + broken), 1.0


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments or "{}"), dict)
    except (ValueError, RecursionError):
        return False


def _is_error(text: str) -> bool:
    """Return whether a tool's result says that the call failed: by a key of a JSON object, or by its first word."""
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            result = json.loads(stripped)
        except (ValueError, RecursionError):
            return False
        status = str(result.get("status", "")).casefold()
        return any(result.get(key) for key in ("error", "errors", "isError", "is_error")) or status in (
            "error",
            "failed",
        )
    return stripped.casefold().lstrip("[(<*").startswith(_FAILED)


def acts_not(facts: Facts, pair: Pair, rollout: Rollout) -> bool:
    """Return whether it refuses, asks, or calls no tool, where the known solution does not."""
    return any(count(facts, pair, rollout)[0] > 0 for count in (_refuses, _asks, _idles))


def _refuses(facts: Facts, pair: Pair, rollout: Rollout) -> Count:
    return _uncalled_for(facts, pair, rollout, lambda actions: any(refuses(text) for _, text in _said(actions)))


def _asks(facts: Facts, pair: Pair, rollout: Rollout) -> Count:
    return _uncalled_for(facts, pair, rollout, lambda actions: any(asks(text, after) for after, text in _said(actions)))


def _idles(facts: Facts, pair: Pair, rollout: Rollout) -> Count:
    if not facts.by_tools:
        return 0.0, 1.0
    return _uncalled_for(facts, pair, rollout, lambda actions: not any(action.calls for action in actions))


def _uncalled_for(facts: Facts, pair: Pair, rollout: Rollout, does: Callable[[Messages], bool]) -> Count:
    solution = facts.solutions.get(pair.task.task_id)
    return float(does(rollout.actions) and not (solution and does(solution))), 1.0


def _said(actions: Messages) -> Iterator[tuple[bool, str]]:
    """The texts of messages without calls, each with whether something was done before."""
    acted = False
    for action in actions:
        if not action.calls:
            yield acted, _text(action)
        acted = acted or bool(action.calls)


def _text(action: Message) -> str:
    refusal = (action.__pydantic_extra__ or {}).get("refusal")
    return f"{action.text}\n{refusal}" if isinstance(refusal, str) else action.text
