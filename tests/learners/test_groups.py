"""The training set of a group of agents and tenants holds its own episodes, and nothing of any other group's."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from learners.snapshots import Snapshot, build_snapshot, read_principals, read_trajectories
from learners.stored_rows import read_held_out_steps
from ratchet_client.events import OutcomeEvent, StepEvent
from streams.errors import TrainingError
from streams.store.client import StoreClient
from streams.store.queries.learning import BRANCHING_STATE_OF_GROUP, LEARNABLE_EPISODES_OF_GROUP
from streams.store.queries.practice import ATTEMPTS_BY_TASK_OF_GROUP, NEW_PRACTICE_OF_GROUP
from streams.trust.groups import AdapterGroup, AdapterSettings
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASK, TASKS, episode
from tests.builders.practised import practised
from tests.builders.stored import Log, ServedStore

SETTINGS = AdapterSettings(
    groups={
        "acme": AdapterGroup(tenants=("acme",)),
        "sales": AdapterGroup(agents=("sales", "quotes"), tenants=("other", "third")),
        "coder": AdapterGroup(agents=("coder",), tenants=("other",)),
    }
)
# The episodes by their names, each with the agent and the principal of every step.
EPISODES = {
    "of-acme": [("helpdesk", "acme/anna")] * 2,
    "of-acme-by-another-agent": [("sales", "acme/ben")] * 2,
    "of-sales": [("sales", "other/cara")] * 2,
    "of-quotes": [("quotes", "third")] * 2,
    "of-nobody": [("helpdesk", "other/cara")] * 2,
    "of-a-tenant-that-is-called-alike": [("sales", "acme2/anna")] * 2,
    "of-two": [("sales", "other/cara"), ("coder", "other/cara")],
    "of-one-and-nobody": [("sales", "other/cara"), ("helpdesk", "other/cara")],
}
EXPECTED = {
    "": {"of-nobody", "of-a-tenant-that-is-called-alike"},
    "acme": {"of-acme", "of-acme-by-another-agent"},
    "sales": {"of-sales", "of-quotes"},
    "coder": set[str](),
}


def told(name: str, task_id: str) -> Iterable[StepEvent | OutcomeEvent]:
    whose = iter(EPISODES[name])
    for event in episode(name, task_id):
        if isinstance(event, StepEvent):
            agent, principal = next(whose)
            yield event.model_copy(update={"agent": agent, "principal": principal})
        else:
            yield event


@pytest.fixture
def store(served_store: ServedStore) -> ServedStore:
    """A store with all of `EPISODES` on train tasks, and a branch of each."""
    log = Log(served_store.store)
    for name, task_id in zip(EPISODES, TASKS[Split.TRAIN], strict=False):
        log.publish(*told(name, task_id))
        log.branched(name, task_id, 0)
    return served_store


async def built(store: ServedStore, home: Path, group: str) -> Snapshot:
    async with StoreClient(store.url) as client:
        return await build_snapshot(client, HOLDOUT, home / group, members=SETTINGS.members(group))


@pytest.mark.parametrize("group", EXPECTED)
async def test_a_snapshot_has_the_episodes_of_its_group_and_no_trace_of_others(
    group: str, store: ServedStore, tmp_path: Path
) -> None:
    if not EXPECTED[group]:
        with pytest.raises(TrainingError, match="nothing to learn from yet"):
            await built(store, tmp_path, group)
        return
    snapshot = await built(store, tmp_path, group)
    trajectories = read_trajectories(snapshot.folder)
    assert {trajectory.episode_id for trajectory in trajectories} == EXPECTED[group]
    assert all(trajectory.branches for trajectory in trajectories)
    others = {principal for name, whose in EPISODES.items() if name not in EXPECTED[group] for _, principal in whose}
    own = {principal for name in EXPECTED[group] for _, principal in EPISODES[name]}
    assert set(read_principals(snapshot.folder)) == own
    content = b"".join(path.read_bytes() for path in snapshot.folder.iterdir())
    for name in {*EPISODES} - EXPECTED[group]:
        assert name.encode() not in content
    for principal in others - own:
        assert principal.encode() not in content


@pytest.mark.parametrize("group", EXPECTED)
async def test_what_is_due_counts_the_episodes_of_the_group_alone(group: str, store: ServedStore) -> None:
    members = SETTINGS.members(group)
    assert members is not None
    (count,) = store.store.query(LEARNABLE_EPISODES_OF_GROUP, {"since": -1, **members.parameters()}).to_pylist()
    assert count == {"learnable": len(EXPECTED[group]), "new": len(EXPECTED[group])}
    (state,) = store.store.query(BRANCHING_STATE_OF_GROUP, members.parameters()).to_pylist()
    assert state == {"asked": 2 * len(EXPECTED[group]), "answered": len(EXPECTED[group])}


@pytest.mark.parametrize(
    ("group", "expected"), [("", {"default", "of-gone"}), ("acme", {"of-acme"}), ("sales", set[str]())]
)
async def test_a_group_learns_from_what_its_own_adapter_practised(
    group: str, expected: set[str], served_store: ServedStore, tmp_path: Path
) -> None:
    log, members = Log(served_store.store), SETTINGS.members(group)
    assert members is not None
    for name, of in {"default": "", "of-acme": "acme", "of-gone": "gone"}.items():
        log.publish(*practised(name, TASK, group=of), *practised(f"{name}-failed", TASK, success=False, group=of))
    found = {*expected, *(f"{name}-failed" for name in expected)}
    if found:
        trajectories = read_trajectories((await built(served_store, tmp_path, group)).folder)
        assert {each.episode_id for each in trajectories} == found
    parameters = members.practice_parameters()
    counted = served_store.store.query(NEW_PRACTICE_OF_GROUP, {"since": -1, **parameters}).to_pylist()
    assert counted == [{"successes": len(expected), "groups": min(1, len(expected))}]
    environment = {"environment": "textworld_express", **parameters}
    attempts = served_store.store.query(ATTEMPTS_BY_TASK_OF_GROUP, environment).to_pylist()
    assert [(row["attempts"], row["successes"]) for row in attempts] == [(len(found), len(expected))] * bool(found)


async def test_without_groups_every_episode_is_learned_from(store: ServedStore, tmp_path: Path) -> None:
    assert AdapterSettings().members("") is None
    async with StoreClient(store.url) as client:
        snapshot = await build_snapshot(client, HOLDOUT, tmp_path)
    assert {trajectory.episode_id for trajectory in read_trajectories(snapshot.folder)} == {*EPISODES}


async def test_recorded_states_that_judge_a_candidate_are_of_its_group(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    for name, task_id in zip(EPISODES, TASKS[Split.SELECTION], strict=False):
        log.publish(*told(name, task_id))
    async with StoreClient(served_store.url) as client:
        for group, expected in EXPECTED.items():
            rows = await read_held_out_steps(client, 100, 100, SETTINGS.members(group))
            assert {row["episode_id"] for row in rows} == expected
