import dataclasses
import os
import random
import subprocess
import sys

import pytest
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from pydantic import JsonValue

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant
from ratchet_client.messages import call as tool_call
from streams.environments.bfcl.environment import BFCL
from streams.environments.bfcl.scenarios import CATEGORIES, scenarios
from streams.environments.bfcl.simulation import Simulation, accepts
from streams.environments.environment import Canonicalises, Environment, Snapshots, TaskSource
from streams.environments.tool_call_mutations import mutations, texts_of
from streams.environments.tool_calls import Call, calling
from streams.errors import SandboxError
from streams.trust.holdout import HoldoutSettings
from tests.streams.environments.bfcl_playing import DIFF, call, names, play


def wandering(session: BFCL, task: Task, generator: random.Random) -> list[Message]:
    """Actions that follow the demonstration, and every third time stray from it or are malformed."""
    first = session.reset(task)
    said, tools = [*first.messages], first.tools or ()
    actions = []
    for right in session.demonstration(task):
        strayed = mutations(right, tools, texts_of(said), generator, 1)
        broken = assistant(None, tool_call("cd", "{broken", "call_1"))
        actions.append(generator.choice([right, right, right, right, *strayed, *strayed, broken]))
        answer = session.step(actions[-1])
        said += answer.messages
        tools = tools if answer.tools is None else answer.tools
    return actions


def test_it_keeps_the_contract_of_an_environment_with_tools_snapshots_and_tasks() -> None:
    for protocol in (Environment, Snapshots, Canonicalises, TaskSource):
        assert isinstance(BFCL(), protocol)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_answers_of_the_wheel_succeed_by_the_wheels_checker(category: str) -> None:
    session = BFCL()
    for task in session.task_list(category, "dev"):
        observations = play(session, task, session.demonstration(task))
        assert all(observation.understood for observation in observations)
        assert [observation.done for observation in observations] == [False] * (len(observations) - 1) + [True]
        assert (observations[0].score, observations[-1].score, observations[-1].success) == (0.0, 1.0, True)
        assert len(observations) - 1 <= session.harness.max_steps


def test_the_score_is_the_share_of_turns_that_are_right_from_the_first_on() -> None:
    session = BFCL()
    actions = session.demonstration(DIFF)
    assert [observation.score for observation in play(session, DIFF, actions)] == [0, 0, 0, 0.5, 0.5, 1]
    assert [observation.score for observation in play(session, DIFF, actions[2:])] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "slip",
    [
        {1: call("tail", file_name="summary.txt", lines=1)},
        {3: call("diff", file_name1="summary.txt", file_name2="report.txt")},
        {0: call("touch", file_name="stray.txt")},
        {0: assistant("Well."), 1: assistant(None)},
    ],
)
def test_a_wrong_call_fails_the_task(slip: dict[int, Message]) -> None:
    session = BFCL()
    actions = [slip.get(place, action) for place, action in enumerate(session.demonstration(DIFF))]
    last = next(observation for observation in play(session, DIFF, actions) if observation.done)
    assert not last.success
    assert last.score < 1


def test_actions_after_the_end_change_nothing() -> None:
    session = BFCL()
    last = play(session, DIFF, session.demonstration(DIFF))[-1]
    after = session.step(call("pwd"))
    assert (after.done, after.success, after.score, after.understood) == (True, last.success, last.score, False)
    assert [message.role for message in after.messages] == ["tool"]


@pytest.mark.parametrize("category", CATEGORIES)
def test_restores_by_snapshot_and_by_replay_are_exact_at_random_depths(category: str) -> None:
    session, other = BFCL(), BFCL()
    generator = random.Random(category)
    for task in generator.sample(session.task_list(category, "train"), 15):
        actions = wandering(session, task, generator)
        observations, snapshots, fingerprints = [session.reset(task)], [session.snapshot()], [session.fingerprint()]
        for action in actions:
            observations.append(session.step(action))
            snapshots.append(session.snapshot())
            fingerprints.append(session.fingerprint())
        for depth in generator.sample(range(len(actions)), min(4, len(actions))):
            assert play(other, task, actions[:depth]) == observations[: depth + 1]
            assert other.fingerprint() == fingerprints[depth]
            for _ in range(2):
                session.restore(snapshots[depth])
                assert session.fingerprint() == fingerprints[depth]
                assert [session.step(action) for action in actions[depth:]] == observations[depth + 1 :]
                assert session.fingerprint() == fingerprints[-1]


def test_a_snapshot_of_something_else_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        BFCL().restore("state")


def test_sessions_share_no_state_although_the_wheels_instances_do() -> None:
    tweets = scenarios("multi_turn_base")[58]
    travel = scenarios("multi_turn_long_context")[153]
    before = [Simulation(scenario).state() for scenario in (tweets, travel)]

    simulation = Simulation(tweets)
    simulation.execute(Call("post_tweet", {"content": "Off we go."}))
    simulation.execute(Call("mention", {"tweet_id": 0, "mentioned_usernames": ["@everyone"]}))
    posted = Simulation(tweets).execute(Call("post_tweet", {"content": "Hello."}))
    assert isinstance(posted, dict)
    assert posted["mentions"] == []

    charge: dict[str, JsonValue] = {
        "access_token": "abc123xyz",
        "card_id": "1234567812345678",
        "travel_date": "2026-10-15",
        "travel_from": "JFK",
        "travel_to": "LAX",
        "travel_class": "economy",
    }
    booked = Simulation(travel).execute(Call("book_flight", charge))
    assert isinstance(booked, dict)
    assert booked["booking_status"] is True
    assert [Simulation(scenario).state() for scenario in (tweets, travel)] == before


def test_the_checker_leaves_nothing_behind() -> None:
    session = BFCL()
    before = set(vars(multi_turn_utils))
    play(session, DIFF, session.demonstration(DIFF))
    assert set(vars(multi_turn_utils)) == before


def test_the_checker_does_not_take_a_text_for_a_call() -> None:
    scenario = scenarios("multi_turn_base")[13]
    answer = (
        Call("touch", {"file_name": "notes.txt"}),
        Call("echo", {"content": 'He said: "sort (again)", then cd (..)', "file_name": "notes.txt"}),
    )
    turn = dataclasses.replace(scenario.turns[0], gold=answer)
    assert accepts(dataclasses.replace(scenario, turns=(turn,)), [[answer]])


def test_a_folder_copied_into_itself_is_an_error_of_the_agent() -> None:
    session = BFCL()
    session.reset(DIFF)
    assert session.step(call("cp", source="documents", destination="documents")).understood
    assert session.step(call("find", name="report.txt")).text.startswith('{"error": "Error during execution: maximum')
    session.restore(session.snapshot())
    assert session.step(assistant("Done.")).score == 0


def test_folders_nested_too_deeply_are_refused_and_the_session_goes_on() -> None:
    session = BFCL()
    session.reset(DIFF)
    session.step(calling([Call("mkdir", {"dir_name": "a"}), Call("cd", {"folder": "a"})] * 2000, "test"))
    with pytest.raises(SandboxError, match="nested too deeply"):
        session.snapshot()
    with pytest.raises(SandboxError, match="nested too deeply"):
        session.fingerprint()
    assert play(session, DIFF, session.demonstration(DIFF))[-1].success


def test_ages_do_not_depend_on_the_day_of_the_replay() -> None:
    simulation = Simulation(scenarios("multi_turn_long_context")[153])
    born: dict[str, JsonValue] = {"first_name": "Michael", "last_name": "Thompson", "passport_number": "US1"}
    of_age = simulation.execute(Call("verify_traveler_information", {**born, "date_of_birth": "2006-09-01"}))
    minor = simulation.execute(Call("verify_traveler_information", {**born, "date_of_birth": "2006-09-02"}))
    assert of_age == {"verification_status": True}
    assert minor != of_age


def test_processes_with_different_hash_seeds_give_the_same_observations() -> None:
    program = """
from streams.environments.bfcl.scenarios import scenarios
from streams.environments.bfcl.simulation import Simulation
from streams.environments.tool_calls import Call
wanted = ("access_token", "card_id", "travel_date", "travel_from", "travel_to", "travel_class")
simulation = Simulation(scenarios("multi_turn_long_context")[153])
arguments = dict.fromkeys(wanted, "JFK") | {"access_token": "abc123xyz", "card_id": "card1234"}
print(simulation.execute(Call("book_flight", arguments | {"travel_date": "2026-10-15", "travel_to": "LAX"})))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert "{'business', 'economy', 'first'}" in said.pop()


def test_a_scenario_is_in_one_fold_in_all_categories() -> None:
    session = BFCL()
    numbers = {
        fold: {task.task_id.rpartition("/")[2] for game in session.games() for task in session.task_list(game, fold)}
        for fold in ("train", "dev")
    }
    assert len(numbers["train"]) > 100
    assert len(numbers["dev"]) > 30
    assert not numbers["train"] & numbers["dev"]


@pytest.mark.nightly
def test_no_two_listed_tasks_begin_alike() -> None:
    session = BFCL()
    for game in session.games():
        first = [session.reset(task) for fold in ("train", "dev") for task in session.task_list(game, fold)]
        assert len({(one.text, *sorted(names(one.tools))) for one in first}) == len(first)


@pytest.mark.parametrize(
    "task_id",
    [
        "multi_turn/test/1~base",
        "multi_turn/train/13~base",
        "multi_turn/dev/200~base",
        "multi_turn/dev~base",
        "multi_turn/dev/13",
        "multi_turn/dev/13~simple",
        "multi_turn/dev/13~base~base",
        "multi_turn_miss/dev/13~func",
        "multi_turn/dev/-1~base",
        "multi_turn/dev/013~base",
    ],
)
def test_a_reserved_or_unknown_task_is_refused(task_id: str) -> None:
    task = Task(environment="bfcl", task_id=task_id)
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        BFCL().reset(task)
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        BFCL().demonstration(task)


def test_variants_of_a_scenario_are_on_the_same_side_of_every_holdout() -> None:
    session = BFCL()
    for key in ("one", "another"):
        sides: dict[str, set[str]] = {}
        for game in session.games():
            for task in session.task_list(game, "train"):
                scenario = task.task_id.split("/")[2].partition("~")[0]
                sides.setdefault(scenario, set()).add(HoldoutSettings(key=key).split(task.task_id))
        assert all(len(splits) == 1 for splits in sides.values())
        assert len(set().union(*sides.values())) == 3


def test_the_test_fold_is_not_listed() -> None:
    with pytest.raises(SandboxError, match="reserved"):
        BFCL().task_list("multi_turn_base", "test")
