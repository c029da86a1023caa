"""What is older is drawn for its share, the nearest first; what may not be learned from never comes back so."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from learners.canaries import draw_canaries
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.replay import distances, mixture, with_replay
from learners.settings import ReplaySettings
from learners.snapshots import Snapshot, build_snapshot, read_episodes, read_principals, read_trajectories
from learners.stored_rows import Older
from learners.trajectories import BASE_SAMPLE, Trajectory
from ratchet_client.events import OutcomeEvent, RetractionEvent, StepEvent
from ratchet_client.messages import user
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import trajectory

TRAIN = TASKS[Split.TRAIN]
ON = ReplaySettings(enabled=True)
NAMES = frozenset({"first", "second", "third"})


def drawn(examples: list[Example], settings: ReplaySettings, count: int, seed: int = 0) -> Counter[int]:
    found = mixture(examples, settings, torch.Generator().manual_seed(seed))
    return Counter(found.draw() for _ in range(count))


def mixed(new: int, older: int, base: int = 0) -> list[Example]:
    shown = [Example(replace(trajectory(number), older=number >= new)) for number in range(new + older)]
    return shown + [Example(replace(trajectory(number), actor_kind=BASE_SAMPLE)) for number in range(base)]


def test_what_is_older_and_the_base_have_their_shares_over_many_draws() -> None:
    settings = ON.model_copy(update={"share": 0.1, "base_share": 0.05})
    found = drawn(mixed(3, 40, 5), settings, 4000)
    older, base = sum(found[number] for number in range(3, 43)), sum(found[number] for number in range(43, 48))
    # Four standard deviations of a binomial count.
    assert older == pytest.approx(400, abs=76)
    assert base == pytest.approx(200, abs=56)
    assert set(found) == set(range(48))
    assert max(found[number] for number in range(3)) - min(found[number] for number in range(3)) <= 1


def test_without_replay_all_is_drawn_evenly() -> None:
    assert set(drawn(mixed(3, 40, 5), ReplaySettings(), 480).values()) == {10}


@pytest.mark.parametrize(("new", "older", "base"), [(0, 4, 0), (4, 0, 0), (0, 0, 4)])
def test_what_is_there_alone_is_drawn_evenly(new: int, older: int, base: int) -> None:
    assert set(drawn(mixed(new, older, base), ON, 40).values()) == {10}


def test_where_nothing_is_new_what_is_older_takes_its_place() -> None:
    found = drawn(mixed(0, 4, 2), ON.model_copy(update={"base_share": 0.25}), 2000)
    assert found[4] + found[5] == pytest.approx(500, abs=78)


def test_a_share_of_nothing_is_drawn_never() -> None:
    assert set(drawn(mixed(3, 4, 2), ON.model_copy(update={"share": 0.0, "base_share": 0.0}), 200)) == {0, 1, 2}


def test_shares_leave_something_for_what_is_new() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        ReplaySettings(share=0.6, base_share=0.4)


def about(number: int, text: str) -> Trajectory:
    return replace(trajectory(number), opening=(user(text),))


def test_the_nearest_of_what_is_older_comes_first_and_all_of_it_before_any_again() -> None:
    new = about(0, "You are in the kitchen. The plate is on the table. Put the plate into the cupboard.")
    near = about(1, "You are in the kitchen. The cup is on the table. Put the cup into the cupboard.")
    far = [about(number, f"Refund order of customer {'abcdefgh'[number]}, who wrote twice.") for number in range(2, 8)]
    measured = distances([*far, near], [new])
    assert int(measured.argmin()) == 6
    examples = [Example(new), *(Example(replace(one, older=True)) for one in (*far, near))]
    settings = ON.model_copy(update={"share": 0.5, "base_share": 0.0})

    def first(settings: ReplaySettings, seed: int) -> int:
        found = mixture(examples, settings, torch.Generator().manual_seed(seed))
        return next(number for number in iter(found.draw, None) if number)

    nearest = [sum(first(chosen, seed) == 7 for seed in range(300)) for chosen in (prioritised(settings), settings)]
    # 1 / (1 + 1/2 + … + 1/7) of the times, and 1/7 of them.
    assert nearest[0] == pytest.approx(300 * 0.386, abs=34)
    assert nearest[1] == pytest.approx(300 / 7, abs=25)
    found = mixture(examples, prioritised(settings), torch.Generator().manual_seed(0))
    older = [number for number in (found.draw() for _ in range(60)) if number]
    assert set(older[:7]) == set(range(1, 8))


def prioritised(settings: ReplaySettings) -> ReplaySettings:
    return settings.model_copy(update={"prioritised": True})


def test_a_mixture_goes_on_where_it_was_left_and_gives_back_what_was_put_back() -> None:
    generator = torch.Generator().manual_seed(0)
    found = mixture(mixed(3, 5, 2), ON, generator)
    for _ in range(7):
        found.draw()
    number = found.draw()
    found.put_back(number)
    left, state = [list(places) for places in found.left], generator.get_state()
    expected = [found.draw() for _ in range(30)]
    assert number in expected
    again = mixture(mixed(3, 5, 2), ON, torch.Generator().set_state(state))
    again.restore(left)
    assert [again.draw() for _ in range(30)] == expected


def test_snapshots_become_trajectories_with_replay() -> None:
    old, new = [trajectory(n) for n in range(3)], [trajectory(n) for n in range(1, 5)]
    marked = with_replay(new, old)
    assert {one.episode_id: one.older for one in marked} == {
        "episode-0": True,
        "episode-1": True,
        "episode-2": True,
        "episode-3": False,
        "episode-4": False,
    }


@pytest.fixture
def log(served_store: ServedStore) -> Log:
    """Three older episodes of one principal, of which a snapshot takes the newest, and a new one."""
    log = Log(served_store.store)
    for number, name in enumerate(["first", "second", "third", "new"]):
        log.publish(*of(name, TRAIN[number]))
    return log


def of(
    name: str, task_id: str, principal: str = "one", kind: Literal["expert", "policy"] = "expert"
) -> list[StepEvent | OutcomeEvent]:
    return [event.model_copy(update={"principal": principal}) for event in episode(name, task_id, kind)]


async def build(
    served: ServedStore, home: Path, older: Older, most_per_principal: int = 1, holdout: HoldoutSettings = HOLDOUT
) -> Snapshot:
    canaries = draw_canaries(1, 0, holdout)
    async with StoreClient(served.url) as client:
        return await build_snapshot(
            client, holdout, home, most_per_principal=most_per_principal, canaries=canaries, older=older
        )


def found(snapshot: Snapshot) -> dict[str, bool]:
    """The episodes of a snapshot, and whether each is older."""
    return {one.episode_id: one.older for one in read_trajectories(snapshot.folder) if one.actor_kind != "canary"}


async def test_what_is_older_comes_back_beyond_the_newest_of_its_principal_and_provenance_names_it(
    served_store: ServedStore, log: Log, tmp_path: Path
) -> None:
    assert found(await build(served_store, tmp_path, Older())) == {"new": False}
    snapshot = await build(served_store, tmp_path, Older(NAMES, 10))
    assert found(snapshot) == {"new": False, "first": True, "second": True, "third": True}
    assert snapshot.manifest.older == 3
    assert read_episodes(snapshot.folder) > NAMES
    assert read_principals(snapshot.folder)["one"] == 4


async def test_what_a_snapshot_holds_anyway_is_marked_and_of_the_rest_so_many_are_taken(
    served_store: ServedStore, log: Log, tmp_path: Path
) -> None:
    whole = await build(served_store, tmp_path, Older(NAMES, 0), most_per_principal=10)
    assert found(whole) == {"new": False, "first": True, "second": True, "third": True}
    some = await build(served_store, tmp_path, Older(NAMES, 1), most_per_principal=2)
    assert found(some).items() > {"new": False, "third": True}.items()
    assert len(found(some)) == 3
    again = await build(served_store, tmp_path, Older(NAMES, 1), most_per_principal=2)
    assert again.manifest == some.manifest


async def test_an_episode_that_went_the_way_of_an_older_one_is_older(
    served_store: ServedStore, log: Log, tmp_path: Path
) -> None:
    log.publish(*of("same", TRAIN[0], "other"))
    snapshot = await build(served_store, tmp_path, Older(NAMES, 10), most_per_principal=10)
    assert "same" not in found(snapshot)
    apart = await build(served_store, tmp_path, Older(frozenset({"same"}), 10), most_per_principal=10)
    assert found(apart) == {"new": False, "first": True, "second": False, "third": False}


async def test_what_consent_was_revoked_of_what_lost_trust_and_what_is_held_out_never_comes_back(
    served_store: ServedStore, log: Log, tmp_path: Path
) -> None:
    log.publish(*of("revoked", TRAIN[4], "leaves"), *of("newest of leaves", TRAIN[5], "leaves"))
    log.publish(*of("doubted", TRAIN[6], kind="policy"), *of("flawless", TRAIN[7], kind="policy"))
    log.publish(*of("held out", TASKS[Split.SELECTION][0]), *of("confirmed", TASKS[Split.CONFIRMATION][0]))
    log.publish(*of("last", TRAIN[8]))
    everything = {*NAMES, "revoked", "newest of leaves", "doubted", "flawless", "held out", "confirmed"}
    older = Older(frozenset(everything), 100)
    before = set(found(await build(served_store, tmp_path, older)))
    assert before == everything - {"held out", "confirmed"} | {"last"}
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    log.publish(OutcomeEvent(episode_id="doubted", verifier="late", success=False, score=0.0))
    after = set(found(await build(served_store, tmp_path, older)))
    assert before - after == {"revoked", "newest of leaves", "doubted"}
    assert after < before
    moved = HoldoutSettings(key="another", selection=0.5, confirmation=0.1)
    shown = await build(served_store, tmp_path, older, holdout=moved)
    tasks = {one.task_id for one in read_trajectories(shown.folder)}
    assert {moved.split(task_id) for task_id in tasks} == {Split.TRAIN}
    assert set(found(shown)) < after


async def test_recoveries_and_canaries_that_were_learned_from_are_older(
    served_store: ServedStore, log: Log, tmp_path: Path
) -> None:
    for number, name in enumerate(["failed", "failed too"]):
        log.publish(
            *(
                event.model_copy(update={"principal": "one"})
                for event in episode(name, TRAIN[10 + number], "policy", success=False)
            )
        )
        log.recovered(name, TRAIN[10 + number], left_at=1)
    first = await build(served_store, tmp_path, Older(), most_per_principal=10)
    ids = read_episodes(first.folder)
    second = await build(served_store, tmp_path, Older(ids, 10))
    assert read_episodes(second.folder) == ids
    assert all(one.older for one in read_trajectories(second.folder))
    log.publish(RetractionEvent(principal="one", reason="asked"))
    log.publish(*of("other", TRAIN[9], "other"))
    third = await build(served_store, tmp_path, Older(ids, 10))
    assert found(third) == {"other": False}


def test_objectives_learn_from_what_is_older_as_from_what_is_new(tmp_path: Path) -> None:
    both = [trajectory(0), replace(trajectory(1), older=True)]
    assert [one.trajectory.older for one in OBJECTIVES["imitation"].examples(both)] == [False, True]
