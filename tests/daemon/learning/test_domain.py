"""Which domain a gate may be played in, and what is said of one that it may not."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daemon import roles
from daemon.cli import app
from daemon.config import DomainSettings, Settings
from daemon.learning.domain import check_domain, check_recorded, holdout_of, is_judged
from daemon.learning.gates import check_gates, contradictions, gate_names
from daemon.learning.loop import open_loop
from daemon.learning.role import serve
from daemon.serving.settings import ServingSettings
from evaluation.settings import CanarySettings, GateSettings
from learners.snapshots import write_snapshot
from ratchet_client.errors import ConfigurationError
from streams.branching.settings import BranchingSettings
from streams.environments.toolbox.definition import ToolboxDefinition
from streams.environments.toolbox.scaffold import write_toolbox
from streams.errors import TrainingError
from streams.intake import role as record_role
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.task_ids import task_of
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import trajectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toolboxes") / "todos"
    write_toolbox(folder, "todos", "functions")
    return folder


def settings_of(folder: Path, url: str = "http://127.0.0.1:9", **domain: Any) -> Settings:
    return Settings(
        domain=DomainSettings.model_validate({"environment": "toolbox", **domain}),
        branching=BranchingSettings(environments={"toolbox": {"folder": str(folder)}}),
        store=StoreSettings(port=int(url.rpartition(":")[2])),
    )


def test_a_suite_is_read_by_its_older_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratchet.toml").write_text('[domain]\nenvironment = "bfcl"\ngame = "multi_turn_base"\n')
    assert Settings.load().domain.suite == "multi_turn_base"
    monkeypatch.setenv("RATCHET_DOMAIN__GAME", "other")
    assert Settings.load().domain.suite == "other"
    (tmp_path / "ratchet.toml").write_text('[domain]\nsuite = "a"\ngame = "b"\n')
    monkeypatch.delenv("RATCHET_DOMAIN__GAME")
    with pytest.raises(ConfigurationError, match=r"'domain\.game' is wrong"):
        Settings.load()


async def test_the_only_suite_need_not_be_named_and_no_domain_is_none(folder: Path) -> None:
    found = await check_domain(settings_of(folder))
    assert found is not None
    assert not found.generates
    assert (found.suite, len(found.tasks), len(found.out_of_domain)) == ("todos", 8, 4)
    without = await check_domain(settings_of(folder, suite="todos", out_of_domain_fold=""))
    assert without is not None
    assert without.out_of_domain == ()
    assert await check_domain(Settings()) is None


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ({"environment": "shop"}, r"'shop': it is not installed; there are bfcl, "),
        ({"suite": "twc"}, r"it has no suite 'twc'; it has todos"),
        ({"fold": "tarin"}, r"has no fold 'tarin' to play: .*dev, train.*; correct domain\.fold\."),
        ({"out_of_domain_fold": "far"}, r"no fold 'far' .*correct domain\.out_of_domain_fold, or leave it empty"),
        ({"fold": "test"}, r"no fold 'test' to play"),
        ({"environment": "bfcl"}, r"it has several suites and domain\.suite names none; it has multi_turn_base, "),
        ({"environment": "openenv"}, r"'openenv': it cannot be opened: .*settings"),
    ],
)
async def test_a_gate_that_cannot_be_played_is_refused_and_it_is_said_why(
    domain: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        await check_domain(settings_of(folder, **domain))


async def test_a_gate_in_another_environment_than_productions_is_refused(
    folder: Path, served_store: ServedStore
) -> None:
    settings = settings_of(folder, served_store.url)
    assert await check_domain(settings)
    log = Log(served_store.store)
    log.publish(*episode("episode-1", next(iter(TASKS.values()))[0]))
    recorded = r"production's recorded episodes are of '\w+' \(1 episodes\)"
    with pytest.raises(ConfigurationError, match=recorded):
        await check_domain(settings)
    async with StoreClient(served_store.url) as store:
        with pytest.raises(ConfigurationError, match=recorded):
            await check_recorded(settings.domain, store)
        (row,) = (await store.query("SELECT DISTINCT environment FROM transitions")).to_pylist()
        await check_recorded(DomainSettings(environment=row["environment"]), store)


async def test_a_task_that_is_named_by_its_opening_is_held_out_where_its_id_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(folder)
    tasks = ToolboxDefinition.read(folder).tasks
    names = {task_of(task.first_messages): task.task_id for task in tasks}
    sides = {name: settings.holdout.split(task_id) for name, task_id in names.items()}
    assert any(settings.holdout.split(name) is not side for name, side in sides.items())
    given: list[HoldoutSettings] = [holdout_of(settings)]

    async def store(kafka: object, store: object, holdout: HoldoutSettings, *others: object) -> None:
        given.append(holdout)

    monkeypatch.setattr(record_role, "serve", store)
    await roles.record(settings.settled())
    async with open_loop(settings.settled(), tmp_path) as loop:
        given.append(loop.settings.holdout)
    for holdout in given:
        assert {name: holdout.split(name) for name in names} == sides
    held_out = next(name for name, side in sides.items() if side is not Split.TRAIN)
    with pytest.raises(TrainingError, match="held out"):
        write_snapshot([trajectory(1, held_out)], given[-1], tmp_path, 1, {})
    # What production says is stored, also where the toolbox is broken; a gate is not played then.
    broken = settings_of(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="its tasks cannot be read"):
        holdout_of(broken)
    await roles.record(broken.settled())
    assert given[-1] == broken.holdout


async def test_without_a_domain_the_learn_role_waits_and_trains_nothing(tmp_path: Path) -> None:
    stop = asyncio.Event()
    role = asyncio.create_task(serve(Settings(home=tmp_path).settled(), stop))
    await asyncio.sleep(0.1)
    assert not role.done()
    stop.set()
    await role
    assert os.listdir(tmp_path) == ["learner.json"]


def test_the_configuration_is_refused_with_its_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = f'[branching.environments.toolbox]\nfolder = "{folder}"\n[domain]\nenvironment = "toolbox"\n'
    (tmp_path / "ratchet.toml").write_text(named)
    assert CliRunner().invoke(app, ["check-config"]).exit_code == 0
    (tmp_path / "ratchet.toml").write_text(f'{named}suite = "chess"\n')
    for command in (["check-config"], ["run", "--roles", "serve,learn"]):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, ConfigurationError)
        assert "it has no suite 'chess'; it has todos" in str(done.exception)


async def test_without_an_environment_recorded_states_will_do_where_it_is_said_so(tmp_path: Path) -> None:
    domain = DomainSettings(recorded=True)
    assert (is_judged(domain), is_judged(DomainSettings())) == (True, False)
    serving = ServingSettings(canary=CanarySettings(share=0.1))
    settings = Settings(home=tmp_path, domain=domain, serving=serving).settled()
    assert await check_domain(settings) is None
    async with open_loop(settings, tmp_path) as loop:
        assert (loop.tasks, loop.held_out, loop.out_of_domain) == ((), (), ())
        assert loop.pool.pids == ()


async def test_recorded_states_without_a_canary_are_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain=DomainSettings(recorded=True)).settled()
    with pytest.raises(ConfigurationError, match=r"serving\.canary\.share"):
        await check_domain(settings)
    with pytest.raises(ConfigurationError, match=r"serving\.canary\.share"):
        async with open_loop(settings, tmp_path):
            pass


def test_recorded_states_stand_for_playing_only_without_an_environment() -> None:
    gate = GateSettings(gates=("improvement", "sentinels", "collapse", "mine", "memorisation"))
    assert gate_names(Settings(gate=gate, domain=DomainSettings(environment="toolbox"))) == gate.gates
    without = Settings(gate=gate, domain=DomainSettings(recorded=True))
    assert gate_names(without) == ("recorded", "collapse", "mine", "memorisation")


TODOS = DomainSettings(environment="toolbox", suite="todos")


def test_the_settings_as_they_are_contradict_nothing() -> None:
    check_gates(Settings(domain=TODOS))
    check_gates(Settings(domain=DomainSettings(recorded=True)))


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        ({"gates": ("improvement", "golden", "improvement")}, "names 'improvement' twice"),
        ({"gates": ("memorisation",)}, "lacks 'improvement'"),
        ({"gates": ("slices", "improvement")}, "'slices' before 'improvement'"),
        ({"gates": ("improvement", "recorded")}, "inconclusive without a canary"),
        ({"gates": ("improvement",), "golden": {"tasks": ["todos/1"]}}, "lacks 'golden'"),
        ({"min_tasks": 150, "lists": {"selection_tasks": 200}}, "less than twice"),
        ({"no_forgetting": {"tasks": 10}}, "fewer than gate.no_forgetting.min_tasks"),
        ({"memorisation": {"alternatives": 15}}, "4.00 bits at most"),
        ({"collapse": {"length_ratio": (4, 0.25)}}, "length_ratio"),
        ({"collapse": {"entropy_ratio": (0.1, float("nan"))}}, "entropy_ratio"),
    ],
)
def test_settings_of_gates_that_contradict_each_other_are_refused(gate: dict[str, Any], wrong: str) -> None:
    (found,) = contradictions(Settings(gate=GateSettings.model_validate(gate), domain=TODOS))
    assert wrong in found


def test_a_canary_and_recorded_states_may_contradict_themselves_too() -> None:
    canary = CanarySettings(share=0.1, promotes="not_worse", most_episodes=100)
    settings = Settings(
        gate=GateSettings.model_validate({"recorded": {"states": 10}}),
        domain=DomainSettings(recorded=True),
        serving=ServingSettings(canary=canary),
    )
    recorded, share = contradictions(settings)
    assert "gate.recorded.states (10)" in recorded
    assert "not_worse_episodes (1000)" in share


async def test_a_gate_that_is_not_installed_is_refused_before_anything_is_trained_for_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain=TODOS, gate=GateSettings(gates=("improvement", "astrology"))).settled()
    with pytest.raises(ConfigurationError, match="'astrology', which is not installed"):
        await check_domain(settings)
    with pytest.raises(ConfigurationError, match="'astrology', which is not installed"):
        async with open_loop(settings, tmp_path):
            pass
