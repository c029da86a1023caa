"""A writer without a model: composes a rationale from the observed outcomes, for models too small to write one.

It says of each alternative what its outcome lets one expect, and why the trusted action is taken. The phrases are drawn
by a seed, so the same state always has the same rationale. Outcomes are told as expectations, since the policy that
learns the text has not seen them when it acts.
"""

import random
from collections.abc import Sequence

from learners.comparisons import Outcome, outcome_of
from learners.reflections.filters import CONCLUSION, Draft, leaks, narrates_future
from learners.reflections.states import ReflectedState, shown, told
from ratchet_client.messages import Messages

_AIM = 125
_GOAL, _ACTION, _OUTCOME = 12, 8, 6

_GOALS = (
    "The task begins with {goal}, so every action should be judged by what it adds to that.",
    "I keep the task in mind, which starts with {goal}, and ask what brings it forward from here.",
    "My goal is given by {goal}, and I want the action that gets me closer to it.",
)
_SEEN = (
    "What I know last is {seen}.",
    "The latest thing that I was shown is {seen}.",
    "From here I go by {seen}.",
)
_WORSE = {
    Outcome.ERROR: (
        "I could go for {action}, but that is likely to be refused{like}, for it does not fit what can be done here.",
        "Doing {action} would probably fail{like}, and an attempt that fails only costs a turn.",
        "With {action} I would expect an error{like}, so it brings the task no further.",
        "It makes little sense to use {action} now, since I see nothing here that would let it work{like}.",
    ),
    Outcome.NOTHING_NEW: (
        "I could go for {action}, but it would most likely change nothing, and I would know as much as before.",
        "Doing {action} would only show me again what I already know.",
        "With {action} I would expect to stand where I stand now, so that turn would be lost.",
        "There is little to gain from {action}, because it leaves everything as it is.",
    ),
    Outcome.WORSE_END: (
        "I could go for {action}, but that risks ending everything before the goal is reached.",
        "Doing {action} would probably close the task too early, with part of it undone.",
        "With {action} I would give up what is still missing, since nothing could follow it.",
        "It is too soon for {action}, which would end the task short of its goal.",
    ),
    Outcome.OTHER: (
        "I could go for {action}, which would rather lead to {like_other} and not directly to what is asked.",
        "Doing {action} is possible, yet I would expect it to give {like_other}, and the task does not depend on that.",
        "With {action} I would look at {like_other}, which can wait until the task needs it.",
        "There is also {action}, but I expect {like_other} from it, and that is a detour for now.",
    ),
}
_TRUSTED = (
    "What the task needs at this point is {action}: it can be done from here, and the following steps build on it.",
    "Against these, {action} uses what is already there and should move the task on at once.",
    "By contrast {action} fits both the goal and the situation, and I expect it to be accepted.",
)
_LAST = (
    "What is missing at this point is {action}: with it everything that was asked for should be done.",
    "Against these, {action} should complete what the task asks for.",
    "By contrast {action} is the one that I expect to bring the task to its end.",
)
_CLOSING = (
    "So I choose it and see to the rest afterwards.",
    "That makes it the better use of this turn.",
    "I therefore take it before anything else.",
)


def composed(state: ReflectedState, seed: int) -> str:
    """The draft of a rationale, with its conclusion in the last line."""
    # The most detailed text that is short enough; the shortest is, whatever the actions are.
    texts = [_text(state, random.Random(f"{seed}/{state.key}"), detail) for detail in (2, 1, 0)]
    text = next((each for each in texts if len(each.split()) <= _AIM), texts[-1])
    return f"{text}\n{CONCLUSION} {shown(state.action)}"


def _text(state: ReflectedState, rng: random.Random, detail: int) -> str:
    """A rationale: with 2 for `detail` also what was seen last, from 1 on also what outcomes say, with 0 all short."""
    few = 1 if detail else 2
    goal = next((message for message in state.before if message.role == "user"), None)
    asked = "" if goal is None else told((goal,))
    sentences = [rng.choice(_GOALS).format(goal=_quoted(asked, _GOAL // few, "what was asked for"))]
    seen = told(state.before[-1:])
    if detail > 1 and state.before[-1] is not goal and seen:
        sentences.append(rng.choice(_SEEN).format(seen=_quoted(seen, _GOAL, "what came back")))
    phrases = {outcome: rng.sample(each, len(each)) for outcome, each in _WORSE.items()}
    for number, alternative in enumerate(state.alternatives):
        outcome = outcome_of(alternative, state.trajectory)
        hint = _hint(state, alternative.observation) if detail else ""
        sentences.append(
            phrases[outcome][number].format(
                action=_quoted(shown(alternative.action), _ACTION // few, "that"),
                like=f", with something like {hint}" if hint else "",
                like_other=hint or "something else",
            )
        )
    is_last = state.step == len(state.trajectory.steps) - 1
    trusted = _quoted(shown(state.action), _ACTION // few, "it")
    sentences.append(rng.choice(_LAST if is_last else _TRUSTED).format(action=trusted))
    sentences.append(rng.choice(_CLOSING))
    return " ".join(sentences)


def _hint(state: ReflectedState, observation: Messages) -> str:
    """The begin of an observation; empty where nothing is said in it, or where it would give the source away."""
    hint = _quoted(told(observation), _OUTCOME, "")
    draft = Draft(hint)
    return "" if leaks(draft, state) or narrates_future(draft, state) else hint


def _quoted(text: str, words: int, otherwise: str) -> str:
    """The first words of a text in quotes; `otherwise` where it has none."""
    parts: Sequence[str] = text.replace('"', "'").split()
    cut = " ".join(parts[:words]).strip(" .,;:!?'")
    return f'"{cut}"' if cut else otherwise
