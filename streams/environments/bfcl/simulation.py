"""The simulated APIs of the wheel `bfcl-eval`, and its checker, without the state that the wheel shares between runs.

`environment.py` plays in them.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from random import Random
from typing import Any

from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code import posting_api, travel_booking
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker
from pydantic import JsonValue

from streams.environments.bfcl.scenarios import Scenario, documented
from streams.environments.tool_calls import Call
from streams.errors import SandboxError


class _Copied(dict[str, JsonValue]):
    def items(self) -> Any:
        return deepcopy(dict(self)).items()


class _FixedToday(datetime):
    @classmethod
    def today(cls) -> "_FixedToday":
        return cls(2024, 9, 1)


def _post_tweet(api: Any, content: str, tags: Sequence[str] = (), mentions: Sequence[str] = ()) -> Any:
    return _wheels_post_tweet(api, content, list(tags), list(mentions))


# The wheel's own keeps its default lists in the tweets, where later calls add to them: for all sessions there will be.
_wheels_post_tweet = posting_api.TwitterAPI.post_tweet
posting_api.TwitterAPI.post_tweet = _post_tweet
# The travel API puts these records into every long-context session itself, and then charges their credit cards.
travel_booking.CREDIT_CARD_EXTENSION = _Copied(travel_booking.CREDIT_CARD_EXTENSION)
travel_booking.BOOKING_RECORD_EXTENSION = _Copied(travel_booking.BOOKING_RECORD_EXTENSION)
# It also computes ages, and a recording must replay next year. The trading API has this day, too.
travel_booking.datetime = _FixedToday

# The travel API prints a set, in an order that differs from process to process.
_SET = re.compile(r"(?<=Must be one of )\{([^{}]*)\}")

# When a file was written is never shown, nor used.
_UNSEEN = "_last_modified"

Steps = Sequence[Sequence[Call]]


class Simulation:
    """The APIs of one session. Raises `SandboxError` where an agent has nested folders too deeply to go on."""

    def __init__(self, scenario: Scenario) -> None:
        self._apis: dict[str, Any] = {name: _api(name, scenario) for name in scenario.apis}

    def execute(self, call: Call) -> JsonValue:
        """The tool's answer, errors of its own included. The call's arguments are valid."""
        api = next(api for name, api in self._apis.items() if call.name in documented(name))
        try:
            return _told(getattr(api, call.name)(**deepcopy(dict(call.arguments))))
        except Exception as error:  # noqa: BLE001 - whatever a simulated tool raises is its answer, as in the wheel
            return {"error": f"Error during execution: {error}"}

    def copy(self) -> "Simulation":
        """One in the same state that shares nothing with this one."""
        with _refusing_depth():
            return deepcopy(self)

    def state(self) -> str:
        """All of the APIs' state as text. Equal texts are equal states, aliases and random generators included."""
        with _refusing_depth():
            return json.dumps(_shape(self._apis, {}))


def _told(result: Any) -> JsonValue:
    """A copy of what a tool returned, which a later call may change. Raises `ValueError` for too long a number."""
    try:
        copy: JsonValue = json.loads(_SET.sub(_in_order, json.dumps(result)))
    except (TypeError, ValueError):
        return str(result)
    return copy


def accepts(scenario: Scenario, turns: Sequence[Steps]) -> bool:
    """Return whether the wheel's checker accepts the answers to the first turns: each turn's state and its results."""
    try:
        verdict = multi_turn_checker(
            [[[_source(call) for call in step] for step in steps] for steps in turns],
            [[_source(call) for call in turn.gold] for turn in scenario.turns[: len(turns)]],
            {"id": scenario.entry_id, "initial_config": scenario.config, "involved_classes": list(scenario.apis)},
            scenario.entry_id.rpartition("_")[0],
            "ratchet",
        )
    finally:
        # It keeps the APIs it makes for the next call of the same name.
        for name in [name for name in vars(multi_turn_utils) if name.endswith("_instance")]:
            delattr(multi_turn_utils, name)
    return bool(verdict["valid"])


@contextmanager
def _refusing_depth() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise SandboxError("the simulated state is nested too deeply. Drop this branch.") from error


def _api(name: str, scenario: Scenario) -> Any:
    api = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
    if name not in STATELESS_CLASSES:
        api._load_scenario(deepcopy(scenario.config.get(name, {})), long_context=scenario.long_context)
    return api


def _in_order(members: re.Match[str]) -> str:
    return f"{{{', '.join(sorted(members[1].split(', ')))}}}"


def _source(call: Call) -> str:
    """The call as Python, which the checker evaluates. It would mistake a parenthesis in a text for another call."""
    literals = {name: repr(value).replace("(", "\\x28") for name, value in call.arguments.items()}
    return f"{call.name}({', '.join(f'{name}={literal}' for name, literal in literals.items())})"


def _shape(value: object, seen: dict[int, int]) -> JsonValue:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return ["tuple", *(_shape(item, seen) for item in value)]
        case Random():
            return repr(value.getstate())
    if id(value) in seen:
        return ["seen", seen[id(value)]]
    seen[id(value)] = len(seen)
    match value:
        case list():
            return ["list", *(_shape(item, seen) for item in value)]
        case set():
            return ["set", *sorted(map(repr, value))]
        case Mapping():
            return ["dict", *([_shape(key, seen), _shape(item, seen)] for key, item in value.items())]
    attributes = sorted(name for name in vars(value) if name != _UNSEEN)
    return [type(value).__name__, *([name, _shape(getattr(value, name), seen)] for name in attributes)]
