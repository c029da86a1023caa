"""The reasons for which a rationale is dropped. One rule each, pure; `REASONS` has all, in the order of their checks.

The rules are those of the notes beside the data of *Agent Learning via Early Experience* (arXiv 2510.08558): most of
what goes wrong in self-reflection are texts that know too much, or that argue for something else.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from learners.reflections.states import ReflectedState, shown, told

LEAST_WORDS, MOST_WORDS = 30, 140
CONCLUSION = "Action:"
# Models write it in bold as they like.
_CONCLUDES = re.compile(rf"(\**){CONCLUSION}\**(.*)", re.IGNORECASE)
_DOUBLED = 12
_COPIED = 8
_SLOTS = re.compile(r"\b(?i:action|option|alternative|candidate|choice)\s*(?:#?\d+|[A-D])\b")
_ROLES = re.compile(
    r"\bthe expert\b|\bexpert(?:'s|s')? (?:action|choice|move|trajectory)|\bdemonstrat(?:ion|or|ed)\b"
    r"|\bground[- ]truth\b|\b(?:trusted|golden|reference|chosen) (?:action|trajectory|solution)\b",
    re.IGNORECASE,
)
_NARRATED = re.compile(
    r"\b(?:next|resulting|future|observed) (?:state|outcome|observation|result)s?\b|\b(?:resulted in|turned out)\b"
    r"|\bI (?:have )?tried\b|\bwhen (?:it was |I )?(?:tried|executed|taken)\b|\bafter (?:trying|executing)\b"
    r"|\bthe (?:environment|system|simulator) (?:responded|replied|answered|returned|said)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A rationale as it was written, and the action that it concludes with; empty where it does not say one."""

    text: str
    conclusion: str = ""

    @classmethod
    def read(cls, written: str) -> Self:
        """The draft in a writer's text, whose last line is `Action:` and the action.

        >>> Draft.read("It is late.\\n\\n**Action:** `go home`")
        Draft(text='It is late.', conclusion='`go home`')
        """
        text, _, last = written.strip().rpartition("\n")
        found = _CONCLUDES.fullmatch(last.strip())
        if found is None:
            return cls(written.strip())
        bold, said = found.groups()
        return cls(text.strip(), said.removesuffix(bold).strip())


def is_empty(draft: Draft, state: ReflectedState) -> bool:
    return not draft.text


def has_wrong_length(draft: Draft, state: ReflectedState) -> bool:
    """Return whether it is too short to compare anything, or so long that it would dilute the action's loss."""
    return not LEAST_WORDS <= len(draft.text.split()) <= MOST_WORDS


def is_doubled(draft: Draft, state: ReflectedState) -> bool:
    """Return whether so many words as no two sentences share by chance come twice; actions may be named twice."""
    known = set(_runs(_known(state), _DOUBLED))
    runs = [run for run in _runs(draft.text, _DOUBLED) if run not in known]
    return len(set(runs)) < len(runs)


def leaks(draft: Draft, state: ReflectedState) -> bool:
    """Return whether it speaks of the expert, or of slots such as "Action 1", which only the writer was shown.

    Words that are known at the state, or belong to one of the actions, are no leak.
    """
    return _says(draft, state, _SLOTS) or _says(draft, state, _ROLES)


def narrates_future(draft: Draft, state: ReflectedState) -> bool:
    """Return whether it tells what nobody knows before acting: by words of hindsight, or an observation's own."""
    known = set(_runs(_known(state), _COPIED))
    unknown = {run for messages in state.after for run in _runs(told(messages), _COPIED)} - known
    return _says(draft, state, _NARRATED) or not unknown.isdisjoint(_runs(draft.text, _COPIED))


def concludes_otherwise(draft: Draft, state: ReflectedState) -> bool:
    """Return whether it ends at another action than the trusted one, or at none."""
    said, trusted = _spelled(draft.conclusion), _spelled(shown(state.action))
    # Arguments of calls mean what they say; a text is read as its harness reads it.
    return said != trusted if state.action.calls else said.casefold() != trusted.casefold()


REASONS: dict[str, Callable[[Draft, ReflectedState], bool]] = {
    "empty": is_empty,
    "conclusion": concludes_otherwise,
    "doubled": is_doubled,
    "leak": leaks,
    "future": narrates_future,
    "length": has_wrong_length,
}


def reason_to_drop(draft: Draft, state: ReflectedState) -> str:
    """The name of the first rule that a draft breaks; empty where it breaks none."""
    return next((name for name, breaks in REASONS.items() if breaks(draft, state)), "")


def _says(draft: Draft, state: ReflectedState, words: re.Pattern[str]) -> bool:
    known = _known(state).casefold()
    return any(" ".join(found[0].casefold().split()) not in known for found in words.finditer(draft.text))


def _known(state: ReflectedState) -> str:
    """What is known at a state, and the actions that are compared, in one line."""
    actions = (shown(action) for action in (state.action, *(each.action for each in state.alternatives)))
    return " ".join(" ".join((told(state.before), *actions)).split())


def _runs(text: str, length: int) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _spelled(action: str) -> str:
    """An action without what writers spell as they like: white space, marks of code, and a full stop at the end."""
    return "".join(action.split()).strip("`").rstrip(".!")
