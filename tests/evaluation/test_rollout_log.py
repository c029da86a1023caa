"""The durable record of rollouts: what it holds is not played again, and a torn line costs only itself."""

from pathlib import Path

import pytest

from evaluation.arena import Arena
from evaluation.matches import Result, matches
from evaluation.rollout_log import Entry, Key, RolloutLog, newest_rollouts, read_rollouts, rollouts_path
from evaluation.rollouts import Exclusion
from evaluation.settings import RolloutSettings
from ratchet_client.events import Task
from streams.environments.harness import ChatHarness
from streams.errors import GateError
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool
from tests.builders.scripted import ScriptedServer
from tests.builders.trials import CANDIDATE, CHAMPION, rollout, tasks

HARNESS = ChatHarness(max_steps=2)


def entry(task: Task, adapter: str, success: bool | None, gate: str = "improvement", repeat: int = 0) -> Entry:
    """A line; None is an exclusion."""
    outcome = Exclusion(task, "it died") if success is None else rollout(task, success)
    return Entry.of(Key(gate, adapter, task, repeat, "c"), adapter, outcome)


@pytest.mark.usefixtures("faulty_environments")
async def test_what_is_recorded_is_not_played_again_under_any_served_name_but_anew_under_other_conditions(
    tmp_path: Path,
) -> None:
    listed = [Task(environment="faulty_sound", task_id=f"walk/train/{place}") for place in range(3, 7)]
    path = rollouts_path(tmp_path, "a" * 64, 1)
    server = ScriptedServer(lambda model, first, turn: 500 if "at 4." in first else "look")
    async with SandboxPool("faulty_sound") as pool:
        with server.running() as address:
            async with PolicyClient(address) as policy:

                async def play(model: str, times: int = 1, sampling: Sampling = Sampling()) -> list[object]:  # noqa: B008
                    settings = RolloutSettings(sampling=sampling, concurrency=3)
                    with RolloutLog(path) as record:
                        arena = Arena(policy, pool, HARNESS, settings, "one", record, {model: "a" * 64})
                        return [await arena.play(listed, model) for _ in range(times)]

                (first,) = await play("candidate")
                asked = len(server.asked)
                assert asked == len(listed) + 1
                assert await play("champion") == [first]
                assert len(server.asked) == asked
                # The same gate may ask for the same task again: that is another play, and is kept too.
                again = await play("candidate", times=2)
                assert again == [first, first]
                assert len(server.asked) == 2 * asked
                assert await play("candidate", times=2) == again
                assert len(server.asked) == 2 * asked
                await play("candidate", sampling=Sampling(temperature=1.0))
                assert len(server.asked) == 3 * asked
    entries = read_rollouts(path)
    assert len({one.key.text for one in entries}) == len(entries) == 3 * len(listed)
    assert sum(one.rollout is None for one in entries) == 3


def test_a_torn_line_is_removed_a_damaged_one_is_an_error_and_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = rollouts_path(tmp_path, "a" * 64, 1)
    lines = [entry(task, "a" * 64, True) for task in tasks(3)]
    with RolloutLog(path) as record:
        for line in lines:
            record.append(line)
        with pytest.raises(GateError, match="open in another process"), RolloutLog(path):
            pass
    with path.open("ab") as file:
        file.write(b'{"gate": "impr')
    assert read_rollouts(path) == tuple(lines)
    with RolloutLog(path) as record:
        assert record.find(lines[0].key) == lines[0]
        record.append(entry(tasks(4)[3], "a" * 64, None))
    assert [one.rollout is None for one in read_rollouts(path)] == [False, False, False, True]
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(GateError, match="line 1: not a rollout"), RolloutLog(path):
        pass


def test_matches_say_who_won_and_what_one_side_could_not_play() -> None:
    won, lost, tied, excluded, alone = tasks(5)
    champion, candidate = CHAMPION.adapter, CANDIDATE.adapter
    sides = {
        won: (False, True),
        lost: (True, False),
        tied: (True, True),
        excluded: (None, True),
    }
    played = [entry(task, champion, one) for task, (one, _) in sides.items()]
    played += [entry(task, candidate, other) for task, (_, other) in sides.items()]
    played += [entry(alone, champion, True), entry(won, "base", True, gate="no_forgetting")]
    found = list(matches(played, candidate))
    assert [(match.gate, match.result) for match in found] == [
        *(("improvement", result) for result in (Result.WIN, Result.LOSS, Result.TIE)),
        ("improvement", Result.EXCLUDED),
        ("improvement", Result.UNPAIRED),
        ("no_forgetting", Result.UNPAIRED),
    ]
    assert {match.other for match in found} == {champion, "base"}


def test_the_newest_record_is_that_of_the_last_trial_of_this_adapter(tmp_path: Path) -> None:
    assert newest_rollouts(tmp_path, "a" * 64) == rollouts_path(tmp_path, "a" * 64, 1)
    for adapter, trial in (("a" * 64, 2), ("a" * 64, 9), ("a" * 64, 10), ("b" * 64, 11)):
        with RolloutLog(rollouts_path(tmp_path, adapter, trial)) as record:
            record.append(entry(tasks(1)[0], adapter, True))
    assert newest_rollouts(tmp_path, "a" * 64) == rollouts_path(tmp_path, "a" * 64, 10)
    moved_away = rollouts_path(tmp_path, "a" * 64, 10).parent
    moved_away.rename(moved_away.with_name(f"{moved_away.name}.bak"))
    assert newest_rollouts(tmp_path, "a" * 64) == rollouts_path(tmp_path, "a" * 64, 9)
