"""Plays in one Java virtual machine, so every test but the first runs after other episodes were played in it."""

import random
from collections.abc import Iterator, Sequence

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant
from streams.environments import scienceworld
from streams.environments.environment import Environment, ListsActions, TaskSource
from streams.environments.scienceworld import ScienceWorld
from streams.errors import SandboxError

State = tuple[str, float, bool, bool, str]


@pytest.fixture
def science() -> Iterator[ScienceWorld]:
    session = ScienceWorld()
    yield session
    session.close()


def task(task_id: str = "boil/train/0") -> Task:
    return Task(environment="scienceworld", task_id=task_id)


def play(session: ScienceWorld, begun: Task, actions: Sequence[Message]) -> list[State]:
    """Every state of an episode as it is seen."""
    seen = []
    for action in (None, *actions):
        observation = session.reset(begun) if action is None else session.step(action)
        seen.append((observation.text, observation.score, observation.done, observation.success, session.fingerprint()))
    return seen


def test_it_keeps_the_contract_of_an_environment(science: ScienceWorld) -> None:
    assert isinstance(science, Environment)
    assert isinstance(science, ListsActions)
    assert isinstance(science, TaskSource)
    assert len(science.games()) == 30


def test_a_first_observation_has_the_task_and_a_later_one_the_score(science: ScienceWorld) -> None:
    first = science.reset(task()).text
    later = science.step(assistant("look around")).text
    assert first.startswith("Your task is to boil water.")
    assert "\n\nThis room is called the hallway." in first
    assert later.endswith("[score 0.00]")


@pytest.mark.parametrize("game", ["power-component", "lifespan-longest-lived", "chemistry-mix"])
def test_the_demonstration_solves_the_task(science: ScienceWorld, game: str) -> None:
    solved = task(f"{game}/train/0")
    actions = science.demonstration(solved)
    science.reset(solved)
    last = [science.step(action) for action in actions][-1]
    assert last.done
    assert last.success
    assert last.score == 1.0


@pytest.mark.nightly
def test_the_demonstration_solves_a_task_of_every_game(science: ScienceWorld) -> None:
    for game in science.games():
        solved = task(f"{game}/train/1")
        actions = science.demonstration(solved)
        science.reset(solved)
        assert [science.step(action) for action in actions][-1].success, game


def test_a_wrong_choice_ends_the_task_without_points(science: ScienceWorld) -> None:
    science.reset(task())
    answer = science.step(assistant("focus on agent"))
    assert answer.done
    assert not answer.success
    assert answer.score == 0.0


def test_an_action_that_is_not_understood_is_answered(science: ScienceWorld) -> None:
    science.reset(task())
    answer = science.step(assistant("dance with the ☃"))
    assert not answer.understood
    assert not answer.done
    assert science.step(assistant("look around")).understood


def test_a_pending_question_is_part_of_the_state(science: ScienceWorld) -> None:
    science.reset(task())
    before = science.fingerprint()
    assert science.step(assistant("open door")).text.startswith("Ambiguous request")
    assert science.fingerprint() != before
    assert "is now open" in science.step(assistant("0")).text


@pytest.mark.nightly
def test_replays_of_random_episodes_are_exact(science: ScienceWorld) -> None:
    """First actions are listed in every state, then only in the last, then another session plays."""
    choose = random.Random(0)
    other = ScienceWorld()
    for game in choose.sample(science.games(), 5):
        begun = task(f"{game}/train/0")
        science.reset(begun)
        actions: list[Message] = []
        for _ in range(choose.randrange(1, 8)):
            actions.append(assistant(choose.choice(science.valid_actions())))
            science.step(actions[-1])
        listed = science.valid_actions()
        first = play(science, begun, actions)
        assert science.valid_actions() == listed
        assert play(other, begun, actions) == first
        assert other.valid_actions() == listed


@pytest.mark.nightly
def test_listing_actions_changes_nothing_that_follows(science: ScienceWorld) -> None:
    begun = task("grow-fruit/train/2")
    actions = science.demonstration(begun)[:12]
    unasked = play(science, begun, actions)
    seen = [(science.reset(begun).text, science.fingerprint())]
    for action in actions:
        assert science.valid_actions() == science.valid_actions()
        seen.append((science.step(action).text, science.fingerprint()))
    assert seen == [(text, fingerprint) for text, *_, fingerprint in unasked]


def test_sessions_of_one_process_do_not_disturb_each_other(science: ScienceWorld) -> None:
    texts = ("open door to kitchen", "go to kitchen", "open cupboard", "wait1", "inventory")
    actions = [assistant(text) for text in texts]
    alone = play(science, task(), actions)
    other = ScienceWorld()
    science.reset(task())
    other.reset(task("melt/dev/14"))
    together = []
    for action in actions:
        other.step(assistant("open door to kitchen"))
        other.valid_actions()
        together.append(science.step(action).text)
    other.close()
    assert together == [text for text, *_ in alone[1:]]


def test_the_fingerprint_changes_with_time_and_not_by_looking(science: ScienceWorld) -> None:
    science.reset(task())
    first = science.fingerprint()
    science.step(assistant("look around"))
    assert science.fingerprint() == first
    science.step(assistant("wait1"))
    assert science.fingerprint() != first


@pytest.mark.parametrize("task_id", ["boil/test/21", "boil/train/14", "boil/train", "fly/train/1", "boil/train/-1"])
def test_a_reserved_or_unknown_task_is_refused(science: ScienceWorld, task_id: str) -> None:
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        science.reset(task(task_id))
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        science.demonstration(task(task_id))


def test_the_test_fold_is_not_listed(science: ScienceWorld) -> None:
    with pytest.raises(SandboxError, match="reserved"):
        science.task_list("boil", "test")


def test_no_two_listed_tasks_begin_alike(science: ScienceWorld) -> None:
    tasks = science.task_list("lifespan-longest-lived", "dev")
    assert 10 < len(tasks) < 31
    assert len({science.reset(listed).text for listed in tasks}) == len(tasks)


def test_a_long_fold_is_listed_in_part(science: ScienceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scienceworld, "_LONGEST_TASK_LIST", 3)
    assert len(science.task_list("test-conductivity", "train")) == 3


def test_a_session_without_a_task_says_so(science: ScienceWorld) -> None:
    with pytest.raises(SandboxError, match="Reset it first"):
        science.step(assistant("look around"))
