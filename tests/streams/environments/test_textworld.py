"""Each game takes seconds to generate, so the tests share a few."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant
from streams.environments.environment import Environment, ListsActions, Observation, Snapshots, TaskSource
from streams.environments.textworld import TextWorld
from streams.environments.textworld_games import FOLDS, GAMES, generate
from streams.errors import SandboxError

# What no list of valid actions has: words to the machine, questions, nonsense.
ODD = (
    "quit",
    "look. save",
    "restore",
    "\\help",
    "script",
    "tw-trace-actions",
    "open",
    "take all",
    "x it",
    "g",
    "☃",
    "",
)

COOKING = Task(environment="textworld", task_id="cooking/train/0", seed=0)
TREASURE = Task(environment="textworld", task_id="treasure_hunter/dev/1000", seed=1000)
COIN = Task(environment="textworld", task_id="coin_collector/train/0", seed=0)

State = tuple[Observation, str, list[str]]


@pytest.fixture(scope="module", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("games")))
        yield


@pytest.fixture
def world() -> Iterator[TextWorld]:
    session = TextWorld()
    yield session
    session.close()


def take(session: TextWorld, action: str) -> State:
    observation = session.step(assistant(action))
    return observation, session.fingerprint(), session.valid_actions()


def wander(session: TextWorld, choose: random.Random, steps: int) -> tuple[list[str], list[State]]:
    """Random actions, valid ones mostly, and what came of them."""
    actions, seen = [], []
    for _ in range(steps):
        valid = session.valid_actions()
        actions.append(choose.choice(valid if valid and choose.random() < 0.75 else ODD))
        seen.append(take(session, actions[-1]))
    return actions, seen


def test_it_keeps_the_contract_of_an_environment(world: TextWorld) -> None:
    for protocol in (Environment, ListsActions, Snapshots, TaskSource):
        assert isinstance(world, protocol)


@pytest.mark.nightly
@pytest.mark.parametrize("task", [COOKING, TREASURE, COIN])
def test_the_demonstration_solves_the_task(world: TextWorld, task: Task) -> None:
    first = world.reset(task)
    observations = [world.step(action) for action in world.demonstration(task)]
    assert not first.done
    assert [observation.done for observation in observations] == [False] * (len(observations) - 1) + [True]
    assert observations[-1].success
    assert observations[-1].score == 1.0
    assert observations[-1].text.endswith("*** The End *** [score 1.00]")
    assert "turns" not in observations[-1].text


def test_a_first_observation_has_the_goal_and_the_place_without_a_banner(world: TextWorld) -> None:
    first = world.reset(COOKING).text
    assert first.startswith("You are hungry! Let's cook a delicious meal.")
    assert "\n\n-= Kitchen =-\n" in first
    assert "$$" not in first


def test_the_wrong_object_loses_the_game(world: TextWorld) -> None:
    """A treasure hunt has one object that must not be taken."""
    world.reset(TREASURE)
    actions = ("go north", "go north", "go east", "go north", "go east", "go south", "take cashew")
    *earlier, last = [world.step(assistant(action)) for action in actions]
    assert not any(observation.done for observation in earlier)
    assert last.done
    assert not last.success
    assert last.text.endswith("*** You lost! *** [score 0.00]")
    assert not world.step(assistant("look")).understood
    assert world.valid_actions() == []


@pytest.mark.parametrize(
    "action", ["dance with the ☃", "sing", "", "open nonsense", "quit", "look. save", "tw-print version"]
)
def test_an_action_that_is_not_understood_is_answered(world: TextWorld, action: str) -> None:
    world.reset(COOKING)
    before = world.fingerprint()
    answer = world.step(assistant(action))
    assert not answer.understood
    assert not answer.done
    assert answer.text
    assert world.fingerprint() == before
    assert world.step(assistant("look")).understood


@pytest.mark.parametrize("action", ["help", "goal", "examine cookbook", "go up", "LOOK.  "])
def test_an_action_that_is_understood_says_so_even_if_it_fails(world: TextWorld, action: str) -> None:
    world.reset(COOKING)
    assert world.step(assistant(action)).understood


def test_a_pending_question_is_part_of_the_state(world: TextWorld) -> None:
    world.reset(COOKING)
    before = world.fingerprint()
    assert "What do you want to open?" in world.step(assistant("open")).text
    assert world.fingerprint() != before
    assert world.step(assistant("fridge")).text.startswith("You open the fridge")


def test_replays_of_random_episodes_are_exact(world: TextWorld) -> None:
    choose, other = random.Random(1), TextWorld()
    for task in (COOKING, TREASURE, COIN) * 4:
        world.reset(task)
        actions, seen = wander(world, choose, choose.randrange(1, 25))
        for session in (world, other):
            session.reset(task)
            assert [take(session, action) for action in actions] == seen


def test_a_snapshot_brings_its_state_back_any_number_of_times(world: TextWorld) -> None:
    choose = random.Random(2)
    for task in (COOKING, TREASURE, COIN) * 4:
        world.reset(task)
        wander(world, choose, choose.randrange(20))
        before, snapshot = world.fingerprint(), world.snapshot()
        actions, seen = wander(world, choose, 10)
        for other in (task, COOKING):
            world.reset(other)
            wander(world, choose, 5)
            world.restore(snapshot)
            assert world.fingerprint() == before
            assert [take(world, action) for action in actions] == seen


def test_a_forked_process_continues_as_its_parent_would_have(world: TextWorld) -> None:
    choose = random.Random(3)
    for task in (COOKING, TREASURE):
        world.reset(task)
        wander(world, choose, 8)
        seed = choose.random()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, repr(wander(world, random.Random(seed), 12)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answers:
            forked = answers.read()
        os.waitpid(child, 0)
        assert forked == repr(wander(world, random.Random(seed), 12))


def test_sessions_of_one_process_do_not_disturb_each_other(world: TextWorld) -> None:
    other = TextWorld()
    world.reset(COOKING)
    other.reset(COOKING)
    other.step(assistant("open fridge"))
    assert "open fridge" in world.valid_actions()
    assert "open fridge" not in other.valid_actions()
    other.close()
    assert world.step(assistant("open fridge")).text.startswith("You open the fridge, revealing")


def test_nothing_is_written_where_it_plays(world: TextWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world.reset(COIN)
    for action in ("save", "script", "look, then save", "\\s", "transcript on", "restore", "yes"):
        world.step(assistant(action))
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_a_game_is_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        files.append(generate("cooking", "dev", 1003))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].with_suffix(".json").read_bytes() == files[1].with_suffix(".json").read_bytes()


@pytest.mark.parametrize(
    "task_id",
    ["cooking/test/2000", "cooking/train/1000", "cooking/dev/0", "cooking/train", "chess/train/1", "cooking/train/-1"],
)
def test_a_reserved_or_unknown_task_is_refused(world: TextWorld, task_id: str) -> None:
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        world.reset(Task(environment="textworld", task_id=task_id))


def test_the_test_fold_is_not_listed(world: TextWorld) -> None:
    with pytest.raises(SandboxError, match="reserved"):
        world.task_list("cooking", "test")


@pytest.mark.nightly
@pytest.mark.parametrize("game", GAMES)
def test_no_two_listed_games_begin_alike(world: TextWorld, game: str) -> None:
    first = [world.reset(task).text for fold in FOLDS for task in world.task_list(game, fold)]
    assert len(set(first)) == len(first) == 80


def test_a_snapshot_of_something_else_is_refused(world: TextWorld) -> None:
    world.reset(COIN)
    with pytest.raises(SandboxError, match="not a snapshot"):
        world.restore("a state")


def test_a_game_that_the_generator_cannot_make_is_an_error_with_the_reason() -> None:
    with pytest.raises(SandboxError, match=r"could not generate chess/train/0: KeyError.*\. [A-Z]\w+ "):
        generate("chess", "train", 0)


def test_a_session_without_a_task_says_so(world: TextWorld) -> None:
    with pytest.raises(SandboxError, match="Reset it first"):
        world.step(assistant("look"))


def test_the_games_own_model_and_the_machine_agree_on_the_score(world: TextWorld) -> None:
    world.reset(COOKING)
    assert world.step(assistant("open fridge")).score == 0.0
    assert world.step(assistant("take carrot from fridge")).score == 1 / 8


@pytest.mark.nightly
def test_generated_tasks_are_those_of_the_fold_that_are_not_listed(world: TextWorld) -> None:
    listed = {task.task_id for task in world.task_list("cooking", "train")}
    made = world.generate("cooking", "train", 0, 2000)
    assert len(made) == len({task.task_id for task in made}) == 1000 - len(listed)
    assert not listed & {task.task_id for task in made}
    assert world.generate("cooking", "train", 5, 3) == made[5:8]
    assert world.reset(made[0]).text != world.reset(COOKING).text
    with pytest.raises(SandboxError, match="reserved"):
        world.generate("cooking", "test", 0, 1)
