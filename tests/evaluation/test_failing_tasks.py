"""Tasks that fail are tried once more and then excluded; what is odd is kept as it came; sides never meet."""

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.arena import Arena
from evaluation.gates.improvement import Improvement
from evaluation.gates.verdict import Verdict
from evaluation.report import GateReport
from evaluation.rollout_log import Entry, RolloutLog
from evaluation.rollouts import Account, Played, Rollout, paired
from evaluation.settings import GateSettings, ImprovementSettings, RolloutSettings
from evaluation.trial import hold_trial
from ratchet_client.events import Task
from streams.environments.harness import ChatHarness
from streams.errors import GateError, PolicyError, SandboxError
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from tests.builders.scripted import ScriptedServer
from tests.builders.trials import CANDIDATE, evidence, rollout, tasks

pytestmark = pytest.mark.usefixtures("faulty_environments")


def lamps(*places: int) -> list[Task]:
    """Tasks of the lamp at these places."""
    return [Task(environment="faulty_sound", task_id=f"walk/train/{place}") for place in places]


def solution(first: str, turn: int) -> str:
    """The action that leads to the lamp which `first` names."""
    place = int(first.removeprefix("The lamp is at ").partition(".")[0])
    return "+1" if turn < place else "light"


def arena(policy: PolicyClient, pool: SandboxPool) -> Arena:
    return Arena(policy, pool, ChatHarness(), RolloutSettings(concurrency=4))


async def test_a_task_that_fails_is_tried_once_more_and_what_it_does_to_its_process_excludes_no_other() -> None:
    times: Counter[str] = Counter()

    def say(model: str, first: str, turn: int) -> str | int:
        times[first] += turn == 0
        if "at 3." in first or ("at 4." in first and times[first] == 1):
            return "die"
        if "at 5." in first:
            return 500
        return solution(first, turn)

    async with SandboxPool("faulty_sound") as pool:
        server = ScriptedServer(say)
        with server.running() as address:
            async with PolicyClient(address) as policy:
                played = await arena(policy, pool).play(lamps(3, 4, 5, 6, 7, 8), "candidate")
    assert [rollout.task_id for rollout in played] == [task.task_id for task in lamps(4, 6, 7, 8)]
    assert all(rollout.success for rollout in played)
    assert [exclusion.task for exclusion in played.excluded] == lamps(3, 5)
    dead, refused = (exclusion.reason for exclusion in played.excluded)
    assert "died" in dead
    assert "refused with 500" in refused
    # Once more than twice at most: when the process died of another task.
    assert times["The lamp is at 3. You are at 0."] in (2, 3)
    assert times["The lamp is at 5. You are at 0."] in (2, 3)


@pytest.mark.slow
async def test_a_server_that_goes_down_and_an_environment_in_which_nothing_works_are_errors_of_the_trial() -> None:
    server = ScriptedServer(lambda model, first, turn: solution(first, turn))
    async with SandboxPool("faulty_sound") as pool:
        with server.running() as address:
            async with PolicyClient(address) as policy:
                with pytest.raises(SandboxError, match="no such task"):
                    await arena(policy, pool).play([_unknown(1), _unknown(2)], "champion")
                one = arena(policy, pool)
                played = await one.play([*lamps(3), _unknown(3)], "champion")
                assert (len(played), len(played.excluded)) == (1, 1)
                server.is_down.set()
                with pytest.raises(PolicyError):
                    await one.play(lamps(4, 5, 6, 7, 8), "champion")
                assert isinstance(one.account.outage, PolicyError)


async def test_sides_play_at_the_same_time_within_one_bound_and_one_that_can_nothing_is_excluded_by_the_other() -> None:
    under_way: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def say(model: str, first: str, turn: int) -> str | int:
        if model == "candidate":
            return 500
        with lock:
            under_way[first] += turn == 0
            most["at once"] = max(most["at once"], under_way.total())
        # The candidate has failed at everything long before the champion solves its first task.
        time.sleep(0.05)
        action = solution(first, turn)
        if action == "light":
            with lock:
                under_way[first] -= 1
        return action

    told: list[tuple[int, int]] = []
    async with SandboxPool("faulty_sound") as pool:
        with ScriptedServer(say).running() as address:
            async with PolicyClient(address) as policy:
                one = arena(policy, pool)
                listed, sides = lamps(3, 4, 5, 6, 7, 8), ("champion", "candidate")
                champion, candidate = await one.play_together(
                    listed, sides, lambda done, total: told.append((done, total))
                )
                with pytest.raises(PolicyError, match="refused with 500"):
                    await arena(policy, pool).play_together(listed, ("candidate", "candidate"))
    assert [rollout.task_id for rollout in champion] == [task.task_id for task in listed]
    assert [exclusion.task for exclusion in candidate.excluded] == listed
    assert one.account.outage is None
    assert told == [(done, 12) for done in range(1, 13)]
    assert most["at once"] == 2  # half of four


async def test_a_disk_that_takes_no_account_of_a_task_says_nothing_of_the_candidate() -> None:
    def full(listed: Sequence[Task]) -> None:
        raise OSError("No space left on device")

    made = evidence(tasks(200))
    made.arena = Arena(made.arena.policy, made.arena.pool, ChatHarness(), RolloutSettings(), before_play=full)
    with pytest.raises(GateError, match="No space left"):
        await hold_trial(made, [Improvement(GateSettings())])
    assert made.results == []


async def test_an_exclusion_that_cannot_be_recorded_says_nothing_of_the_candidate(
    tmp_path: Path,
) -> None:
    class Full(RolloutLog):
        def append(self, entry: Entry) -> None:
            if entry.excluded is not None:
                raise GateError("no room")
            super().append(entry)

    def say(model: str, first: str, turn: int) -> str | int:
        return "die" if "at 3." in first else solution(first, turn)

    async with SandboxPool("faulty_sound") as pool:
        with ScriptedServer(say).running() as address, Full(tmp_path / "trials" / "a-1" / "rollouts.jsonl") as record:
            async with PolicyClient(address) as policy:
                one = replace(arena(policy, pool), record=record)
                with pytest.raises(GateError, match="no room"):
                    await one.play(lamps(3, 4), "candidate")
                assert isinstance(one.account.outage, GateError)


def _unknown(number: int) -> Task:
    return Task(environment="faulty_sound", task_id=f"fly/train/{number}")


async def test_what_one_model_plays_in_no_other_model_ever_played_in() -> None:
    during: defaultdict[str, set[int]] = defaultdict(set)
    async with SandboxPool("faulty_sound") as pool:

        def say(model: str, first: str, turn: int) -> str | int:
            during[model] |= set(pool.pids) - before
            return "die" if model == "candidate" else solution(first, turn)

        await pool.describe()
        before = set(pool.pids)
        with ScriptedServer(say).running() as address:
            async with PolicyClient(address) as policy:
                one = arena(policy, pool)
                assert len(await one.play(lamps(3, 4), "champion")) == 2
                assert set(pool.pids) == before
                # Whatever the candidate does to its process is its own loss.
                assert len((await one.play(lamps(3, 4), "candidate")).excluded) == 2
                assert set(pool.pids) == before
    assert len(during["champion"]) == 2
    assert len(during["candidate"]) == 4  # each task is tried once more
    assert during["champion"].isdisjoint(during["candidate"])


async def test_odd_scores_and_halves_of_surrogate_pairs_are_kept_in_a_form_that_is_read_back() -> None:
    odd = {3: "score nan", 4: "score inf", 5: "score -3", 6: "score 1e300", 7: "a\ud800b"}

    def say(model: str, first: str, turn: int) -> str:
        place = int(first.removeprefix("The lamp is at ").partition(".")[0])
        return odd[place] if turn == 0 else "score 1"

    async with SandboxPool("faulty_sound") as pool:
        with ScriptedServer(say).running() as address:
            async with PolicyClient(address) as policy:
                played = await arena(policy, pool).play(lamps(*odd), "candidate")
    assert not played.excluded
    scores = [rollout.score for rollout in played]
    assert math.isnan(scores[0])
    assert scores[1:] == [math.inf, -3.0, 1e300, 1.0]
    assert [rollout.escaped_actions for rollout in played] == [0, 0, 0, 0, 1]
    assert played[4].actions[0].text == "a\\ud800b"

    made = evidence(lamps(*odd))
    made.pairs += paired(lamps(*odd), played, played)
    report = GateReport.of(made, Verdict.INCONCLUSIVE, "Odd.", GateSettings())
    again = GateReport.model_validate_json(report.model_dump_json())
    assert again.held_out is not None
    assert math.isnan(again.held_out.candidate.mean_score)
    assert [row.candidate_score for row in again.held_out.tasks][1:] == scores[1:]


@pytest.mark.parametrize(("excluded", "verdict"), [(4, Verdict.PROMOTE), (5, Verdict.INCONCLUSIVE)])
async def test_more_excluded_tasks_than_are_allowed_make_a_gate_inconclusive_and_it_says_why(
    excluded: int, verdict: Verdict
) -> None:
    listed = tasks(200)
    missing = {task.task_id for task in listed[:excluded]}

    def outcome(task: Task, model: str) -> Rollout | None:
        is_candidate = model == CANDIDATE.served
        # Some of them fail for the one side, some for the other.
        fails = task.task_id in missing and is_candidate == task.task_id.endswith(("1", "3"))
        return None if fails else rollout(task, is_candidate)

    made = evidence(listed, outcome)
    settings = GateSettings(min_tasks=100, improvement=ImprovementSettings(block=200))
    found, reason = await hold_trial(made, [Improvement(settings)], settings)
    (result,) = made.results
    assert found is verdict
    assert result.figures["excluded"] == excluded
    assert len(made.pairs) == 200 - excluded
    if verdict is Verdict.INCONCLUSIVE:
        assert "5 of 200 tasks could not be played to their end" in reason
        assert "gate.most_excluded" in reason


def test_only_what_both_played_is_paired_in_the_order_of_the_list() -> None:
    listed = tasks(4)
    one, other = (Played(tuple(rollout(task, True) for task in side)) for side in (listed[:3], listed[:0:-1]))
    assert [pair.task for pair in paired(listed, one, other)] == listed[1:3]
    account = Account()
    account.add(one)
    assert (account.share, account.excess(0.0)) == (0.0, None)
