"""Rationales: where one may be written and stand, why one is dropped, how it is composed and kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.chat import ChatTokenizer
from learners.objectives.reflection import GROUNDED
from learners.reflections.filters import Draft, reason_to_drop
from learners.reflections.grounded import composed
from learners.reflections.places import Places, places
from learners.reflections.prompts import question
from learners.reflections.records import counts, read_reflections, with_rationales
from learners.reflections.states import reflected_states
from learners.settings import ReflectionSettings
from learners.trajectories import Rationale, Trajectory
from ratchet_client.messages import Message, assistant, call, user
from streams.environments.harness import ChatHarness
from streams.errors import TrainingError
from tests.builders.reflected import BOOKING, GOOD, KITCHEN, state, written
from tests.builders.trained import branch, step, trajectory

CALLING = ChatHarness(reply="message", max_tokens=256, stop=())


@pytest.mark.parametrize(
    ("template", "harness", "reasoning", "found"),
    [
        ("smollm2", ChatHarness(), False, Places(calls=False, texts=False)),
        ("smollm2", ChatHarness(reply="last_line", max_tokens=256, stop=()), False, Places(calls=False, texts=True)),
        ("qwen2_5", CALLING, False, Places(calls=True, texts=False)),
        ("qwen2_5", CALLING, True, Places(calls=True, texts=False)),
        ("qwen2_5", replace(CALLING, max_tokens=64), False, Places(calls=False, texts=False)),
        ("qwen2_5", None, False, Places(calls=True, texts=False)),
        ("qwen3", CALLING, True, Places(calls=True, texts=True)),
        ("qwen3", None, True, Places(calls=True, texts=True)),
        # It writes a call, or a content, and never both.
        ("llama3_2", CALLING, False, Places(calls=False, texts=False)),
    ],
)
def test_a_rationale_stands_only_where_what_is_trained_is_served(
    tokenizers: Callable[[str], ChatTokenizer],
    template: str,
    harness: ChatHarness | None,
    reasoning: bool,
    found: Places,
) -> None:
    assert places(tokenizers(template), harness, reasoning=reasoning) == found


def test_alternatives_are_distinct_and_few_of_them_errors() -> None:
    found = reflected_states([KITCHEN, replace(KITCHEN, success=False)], 2, 100, 0)
    assert [one.step for one in found] == [0, 1]
    actions = [one.action.text for one in found[0].alternatives]
    assert actions[0] == "sing"
    assert actions[1] in ("dance", "jump")
    assert len(reflected_states([KITCHEN], 3, 1, 0)) == 1
    assert [one.step for one in reflected_states([replace(KITCHEN, learn_from=1)], 3, 100, 0)] == [1]


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (Draft(GOOD, "open fridge"), ""),
        (Draft(GOOD, "Open  Fridge."), ""),
        (Draft("", "open fridge"), "empty"),
        (Draft(GOOD), "conclusion"),
        (Draft(GOOD, "sing"), "conclusion"),
        (Draft(f"{GOOD} {GOOD}", "open fridge"), "doubled"),
        (Draft(f"{GOOD} That is what the expert would do.", "open fridge"), "leak"),
        (Draft(f"{GOOD} So Action 1 is best.", "open fridge"), "leak"),
        (Draft(f"{GOOD} So option B is best.", "open fridge"), "leak"),
        (Draft(f"{GOOD} The next state shows a plate.", "open fridge"), "future"),
        (Draft(f"{GOOD} I tried to dance and could not.", "open fridge"), "future"),
        (Draft(f"{GOOD} It holds a plate and some milk that is past its date.", "open fridge"), "future"),
        (Draft("It is closed.", "open fridge"), "length"),
        (Draft(" ".join(f"word{number}" for number in range(200)), "open fridge"), "length"),
    ],
)
def test_a_rationale_is_dropped_for_the_first_rule_that_it_breaks(draft: Draft, reason: str) -> None:
    assert reason_to_drop(draft, state()) == reason


def test_words_that_are_known_at_the_state_are_no_leak() -> None:
    asked = replace(KITCHEN, opening=(*KITCHEN.opening, user("The expert says: Action 1 comes first.")))
    draft = Draft(f"{GOOD} The expert says that Action 1 comes first.", "open fridge")
    assert reason_to_drop(draft, state(asked)) == ""
    assert reason_to_drop(draft, state()) == "leak"


def test_the_conclusion_of_calls_is_their_arguments_to_the_letter() -> None:
    assert reason_to_drop(Draft(GOOD, 'book({"city": "Rome"})'), state(BOOKING)) == ""
    assert reason_to_drop(Draft(GOOD, 'book({"city": "rome"})'), state(BOOKING)) == "conclusion"


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "",
            "the expert did this",
            "Action 1",
            "I tried it and the next state came",
            "x. " * 15 + "The resulting state",
            "option B. The next state is known. I tried.",
            "Error: no such thing",
            '{"error": "no room"}',
            "many words " * 30,
            "one. two. three. four. five. six. seven. eight. nine. ten. eleven. twelve. thirteen. fourteen",
            '"quoted" {braces} {0}',
        ]
    ),
)
ACTIONS = st.one_of(
    TEXTS.filter(lambda text: bool(text.strip())).map(assistant),
    st.dictionaries(st.sampled_from("abc"), TEXTS, max_size=3).map(
        lambda arguments: assistant(None, call("act", json.dumps(arguments), "a"))
    ),
)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    steps = draw(st.lists(st.tuples(ACTIONS, TEXTS), min_size=1, max_size=3))
    taken = st.builds(branch, st.integers(0, len(steps) - 1), ACTIONS, TEXTS)
    branches = draw(st.lists(taken, min_size=1, max_size=8))
    return Trajectory(
        episode_id="drawn",
        task_id="t",
        opening=(Message(role="system", content="Act."), user(draw(TEXTS))),
        steps=tuple(step(action, observation) for action, observation in steps),
        branches=tuple(
            replace(one, done=draw(st.booleans()), score=draw(st.sampled_from([None, 0.0, 1.0]))) for one in branches
        ),
    )


@given(trajectories(), st.integers(1, 4), st.integers(0, 3))
def test_a_composed_rationale_breaks_no_rule_and_is_the_same_again(one: Trajectory, most: int, seed: int) -> None:
    for found in reflected_states([one], most, 100, seed):
        written = composed(found, seed)
        assert reason_to_drop(Draft.read(written), found) == ""
        assert composed(found, seed) == written


def test_composed_rationales_differ_between_seeds_and_name_the_alternatives() -> None:
    texts = {composed(state(), seed) for seed in range(8)}
    assert len(texts) > 4
    assert all('"sing"' in text and '"open fridge"' in text for text in texts)
    assert all(50 <= len(Draft.read(text).text.split()) <= 125 for text in texts)


def test_the_question_shows_each_action_with_its_outcome_and_numbers_none() -> None:
    system, asked = question(state(), 0)
    assert "Do not number" in system.text
    for shown in ("- sing\n", "You sing a song", "- open fridge\n", "It holds a plate", "to be taken:\nopen fridge"):
        assert shown in asked.text
    assert "expert" not in system.text + asked.text
    assert len({question(state(), seed)[1].text for seed in range(8)}) > 1


def test_rationales_join_their_trajectories_and_damaged_files_are_named(tmp_path: Path) -> None:
    (one, other) = with_rationales([trajectory(1), trajectory(2)], [written(1), written(2, "leak")])
    assert one.rationales == (Rationale(0, GOOD, GROUNDED),)
    assert other.rationales == ()
    assert counts([]) == {}
    (tmp_path / "damaged.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(TrainingError, match="no file of rationales"):
        read_reflections(tmp_path / "damaged.jsonl")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_reflections(tmp_path / "missing.jsonl")


def test_a_server_without_the_name_of_a_model_is_refused_and_the_key_is_never_shown() -> None:
    with pytest.raises(ValueError, match="model is missing"):
        ReflectionSettings(writer="model", url="http://127.0.0.1:8000")
    told = ReflectionSettings.model_validate({"api_key": "sk-secret"}).model_dump_json()
    assert "sk-secret" not in told
