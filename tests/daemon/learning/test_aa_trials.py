"""`benchmarks.aa_trials`: trials of an adapter against itself, which leave its home as it was."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.aa_trials import NAMES, Contest, adapter_of, contest, settings_of, summary
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from evaluation.gates.gate import TaskLists
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings
from ratchet_client.events import Task
from streams.environments.toolbox.scaffold import write_toolbox
from streams.errors import GateError
from tests.builders.trials import EVERYTHING_HELD_OUT, RecordedArena, evidence, rollout, tasks

ADAPTER = "c" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


def files(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def contest_of(record: Path, plays: Callable[[Task, str], bool]) -> Contest:
    arena = evidence(results=lambda task, model: rollout(task, plays(task, model))).arena
    assert isinstance(arena, RecordedArena)
    lists = TaskLists(selection=tuple(tasks(160)))
    return Contest(arena, lists, GateSettings(), EVERYTHING_HELD_OUT, ADAPTER, record)


async def test_flips_and_phi_of_all_trials_are_told_and_alpha_is_spent_trial_by_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: object, group: str | None = None) -> None: ...

    monkeypatch.setattr("streams.sandboxes.pool.SandboxPool.end_groups", nothing)
    # The copies differ on two tasks, one each way.
    shared = contest_of(
        tmp_path, lambda task, model: task.seed % 4 == 0 or (task.seed, model) in {(1, NAMES[0]), (2, NAMES[1])}
    )
    held = [each async for each in shared.trials(3)]
    assert [each.verdict for each in held] == [Verdict.INCONCLUSIVE] * 3
    assert held[0].alpha > held[1].alpha > held[2].alpha
    found = summary(ADAPTER, held)
    assert found["promotions"] == 0
    assert found["verdicts"] == {"INCONCLUSIVE": 3}
    flips = sum(each.wins + each.losses for each in held)
    assert found["flip_rate"] == flips / sum(each.tasks for each in held)
    assert 0.9 < float(str(found["phi"])) < 1.0
    assert [each.alpha async for each in shared.trials(2, alpha=0.05)] == [0.05, 0.05]


async def test_each_trial_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: object, group: str | None = None) -> None: ...

    monkeypatch.setattr("streams.sandboxes.pool.SandboxPool.end_groups", nothing)
    shared = contest_of(tmp_path, lambda task, model: task.seed < 20 or (task.seed < 40 and model == NAMES[1]))
    played = [(each.wins, each.both) async for each in shared.trials(4)]
    assert len(set(played)) > 1


def test_the_adapter_is_the_champion_or_what_was_promoted_last_or_the_one_that_is_named(registry: Registry) -> None:
    with pytest.raises(GateError, match="nothing was ever promoted"):
        adapter_of(registry, "")
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        registry.enter(ADAPTER, state, "learner", "a test")
    registry.promote(ADAPTER, "ann", "better")
    assert adapter_of(registry, "") == ADAPTER
    registry.roll_back("base", "ann", "the end of a demo")
    assert adapter_of(registry, "") == ADAPTER
    (registry.home / "adapters" / ADAPTER).mkdir(parents=True)
    assert adapter_of(registry, "ccc") == ADAPTER
    with pytest.raises(GateError, match="0 adapters"):
        adapter_of(registry, "ddd")


@pytest.fixture
def installation(
    registry: Registry, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    write_toolbox(tmp_path / "box", "box", "functions")
    for name, value in {
        "MODEL": str(tiny_base),
        "DOMAIN__ENVIRONMENT": "toolbox",
        "BRANCHING__ENVIRONMENTS__TOOLBOX__FOLDER": str(tmp_path / "box"),
        "GATE__ROLLOUTS__SAMPLING__MAX_TOKENS": "4",
        "HOLDOUT__SELECTION": "1.0",
        "HOLDOUT__CONFIRMATION": "0.0",
        "ENGINE__MAX_LENGTH": "1024",
    }.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    yield registry.home
    shutil.rmtree(tmp_path / "box")


@pytest.mark.nightly
async def test_a_real_adapter_is_played_from_its_home_which_stays_as_it_was_and_a_second_run_plays_nothing(
    installation: Path, make_adapter: Callable[..., str], tmp_path: Path
) -> None:
    adapter = make_adapter(1)
    before = files(installation)
    settings = settings_of(installation, None)
    for run in range(2):
        async with contest(settings, adapter, 8, tmp_path / "record") as shared:
            held = [each async for each in shared.trials(2)]
        assert [each.tasks for each in held] == [len(shared.tasks.selection)] * 2
        assert summary(adapter, held)["promotions"] == 0
        lines = (tmp_path / "record" / "trials" / f"{adapter}-1" / "rollouts.jsonl").read_bytes()
        if run == 0:
            first = lines
    assert lines == first
    assert files(installation) == before
