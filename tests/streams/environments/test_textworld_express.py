import random
from collections.abc import Iterator

import pytest
from textworld_express.constants import GAME_NAMES

from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from streams.environments.environment import Environment
from streams.environments.textworld_express import TextWorldExpress
from streams.errors import SandboxError


@pytest.fixture
def game() -> Iterator[TextWorldExpress]:
    session = TextWorldExpress()
    yield session
    session.close()


def test_it_keeps_the_contract_of_an_environment(game: TextWorldExpress) -> None:
    assert isinstance(game, Environment)


def test_the_demonstration_solves_the_task(game: TextWorldExpress, task: Task) -> None:
    actions = game.demonstration(task)
    game.reset(task)
    observations = [game.step(action) for action in actions]
    assert assistant("look around") not in actions
    assert [observation.done for observation in observations] == [False] * (len(actions) - 1) + [True]
    assert observations[-1].success
    assert observations[-1].score == 1.0


def named(task_id: str) -> Task:
    return Task(environment="textworld_express", task_id=task_id)


@pytest.mark.parametrize("name", GAME_NAMES)
def test_the_demonstration_solves_tasks_of_every_game(game: TextWorldExpress, name: str) -> None:
    for task in (
        named(f"{name}/{fold}/{seed}") for fold, first in (("train", 1), ("dev", 10001)) for seed in (first, first + 6)
    ):
        actions = game.demonstration(task)
        game.reset(task)
        observations = [game.step(action) for action in actions]
        assert all(observation.understood for observation in observations)
        assert observations[-1].success
        assert observations[-1].score == 1.0


@pytest.mark.parametrize("name", GAME_NAMES)
def test_every_valid_action_of_every_game_is_listed_once_and_understood(game: TextWorldExpress, name: str) -> None:
    task = named(f"{name}/train/3")
    before = game.demonstration(task)[:2]
    game.reset(task)
    for earlier in before:
        game.step(earlier)
    listed = game.valid_actions()
    assert listed == sorted(set(listed))
    for action in listed:
        game.reset(task)
        for earlier in before:
            game.step(earlier)
        assert game.step(assistant(action)).understood


@pytest.mark.parametrize("name", GAME_NAMES)
def test_an_action_that_leaves_the_fingerprint_as_it_was_has_changed_nothing(game: TextWorldExpress, name: str) -> None:
    choose, unchanged = random.Random(0), 0
    for seed in range(1, 30):
        task = named(f"{name}/train/{seed}")
        solution = game.demonstration(task)
        before, after = solution[: len(solution) // 2], solution[len(solution) // 2 :]
        game.reset(task)
        for action in before:
            game.step(action)
        fingerprint = game.fingerprint()
        game.step(assistant(choose.choice((*game.valid_actions(), "look around", "inventory", "help", "dance"))))
        if game.fingerprint() != fingerprint:
            continue
        unchanged += 1
        tried = [(game.step(action), game.fingerprint(), game.valid_actions()) for action in after]
        game.reset(task)
        for action in before:
            game.step(action)
        assert [(game.step(action), game.fingerprint(), game.valid_actions()) for action in after] == tried
    assert unchanged


def test_a_first_observation_has_the_task_and_a_later_one_the_score(game: TextWorldExpress, task: Task) -> None:
    first = game.reset(task).text
    later = game.step(assistant("take dirty white shirt")).text
    assert first.startswith("Your task is to pick up objects, then place them in their usual locations")
    assert "\n\nYou are in the laundry room." in first
    assert first == first.strip()
    assert later == "You take the dirty white shirt. [score 0.25]"


def test_an_action_that_is_not_understood_is_answered(game: TextWorldExpress, task: Task) -> None:
    game.reset(task)
    answer = game.step(assistant("dance with the ☃"))
    assert answer.text == "Unknown action: I'm not sure what you mean. [score 0.00]"
    assert not answer.done


def test_calls_of_tools_are_no_words_of_a_game(game: TextWorldExpress, task: Task) -> None:
    game.reset(task)
    assert not game.step(assistant(None, call("take", '{"object": "dirty white shirt"}', "call_1"))).understood


def test_a_replay_gives_the_same_observations_and_fingerprints(game: TextWorldExpress, task: Task) -> None:
    def play() -> list[tuple[str, str, list[str]]]:
        seen = [(game.reset(task).text, game.fingerprint(), game.valid_actions())]
        for action in ("open clothes drier", "take dirty white shirt", "put dirty white shirt in clothes drier"):
            seen.append((game.step(assistant(action)).text, game.fingerprint(), game.valid_actions()))
        return seen

    first = play()
    assert play() == first
    assert len({fingerprint for _, fingerprint, _ in first}) == len(first)


def test_sessions_of_one_process_do_not_disturb_each_other(game: TextWorldExpress, task: Task) -> None:
    other = TextWorldExpress()
    game.reset(task)
    other.reset(Task(environment="textworld_express", task_id="coin/dev/10003", seed=10003))
    assert game.step(assistant("take dirty white shirt")).score == 0.25
    other.close()
    assert "put dirty white shirt in laundry basket" in game.valid_actions()


@pytest.mark.parametrize(
    "task_id",
    [
        "twc/test/20000",
        "twc/train/20000",
        "twc/train",
        "chess/train/1",
        "twc/train/-1",
        "twc/train/017",
        "twc/train/\uff11\uff17",
    ],
)
def test_a_reserved_or_unknown_task_is_refused(game: TextWorldExpress, task_id: str) -> None:
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        game.reset(Task(environment="textworld_express", task_id=task_id))


def test_the_test_fold_is_not_listed(game: TextWorldExpress) -> None:
    with pytest.raises(SandboxError, match="reserved"):
        game.task_list("twc", "test")


def test_no_two_listed_tasks_begin_alike(game: TextWorldExpress) -> None:
    tasks = game.task_list("twc", "dev")
    assert len(tasks) > 400
    assert len({game.reset(task).text for task in tasks}) == len(tasks)
