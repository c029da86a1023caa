"""Commands with `--group`: each acts on that group and on no other, and one that is not set is refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner, Result

from daemon.cli import COMMANDS, app
from daemon.registry.audit import Action, AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from ratchet_client.errors import ConfigurationError, RatchetError
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.daemon.conftest import serve_role

ADAPTERS = AdapterSettings(groups={name: AdapterGroup(agents=(name,)) for name in ("one", "two")})
HELD = "a" * 64
WHY = ("--reason", "a test")
GROUPED: dict[str, tuple[str, ...]] = {
    "status": (),
    "history": (),
    "why": ("champion",),
    "rollback": (),
    "restore": (HELD, *WHY),
    "hold": WHY,
    "resume": (),
    "approve": (HELD, *WHY),
    "reject": (HELD, *WHY),
    "drill rollback": (),
    "anchor set": (BASE, *WHY),
    "gate show": ("champion",),
    "gate stats": (),
    "gate aa": (),
}
"""The commands that take a group, each with arguments that suffice."""


def invoke(command: str, *arguments: str, group: str = "") -> Result:
    named = ("--group", group) if group else ()
    return CliRunner().invoke(app, [*command.split(), *arguments, *named])


async def told(command: str, *arguments: str, group: str = "") -> Any:
    """The JSON that a command prints, which succeeds."""
    done = await asyncio.to_thread(invoke, command, *arguments, "--json", group=group)
    assert done.exit_code == 0, done.exception
    # The serve role of this process logs to the same place meanwhile.
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(("{", "["))))


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Every command of the command line by what is typed for it."""
    for name, listed in COMMANDS.items():
        loaded = listed.load(name)
        if isinstance(loaded, TyperGroup):
            for below, command in loaded.commands.items():
                assert isinstance(command, TyperCommand)
                yield f"{name} {below}", command
        else:
            yield name, loaded


@pytest.fixture
def groups(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> dict[str, Registry]:
    """The registries of the default group and of two others, which the commands find by their variables.

    The first and the last have an adapter that waits for a person.
    """
    monkeypatch.setenv("RATCHET_HOME", str(registry.home))
    monkeypatch.setenv("RATCHET_ADAPTERS", ADAPTERS.model_dump_json())
    found = {name: Registry(home_of(registry.home, name)) for name in ("", *ADAPTERS.groups)}
    for name in ("", "two"):
        (found[name].home / "adapters" / HELD).mkdir(parents=True)
        for state in (State.TRAINED, State.EVALUATING, State.HELD):
            found[name].enter(HELD, state, "learner", "a test")
    return found


@pytest.fixture
async def one(
    groups: dict[str, Registry],
    make_adapter: Callable[..., str],
    inference_url: str,
    emptied: None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[str, str]]:
    """The adapters of the group `one` that wait for a person, while a serve role runs."""
    waiting = (
        make_adapter(1, last=State.HELD, within=groups["one"]),
        make_adapter(2, within=groups["one"], last=State.HELD),
    )
    async with serve_role(groups[""], inference_url, adapters=ADAPTERS) as client:
        monkeypatch.setenv("RATCHET_SERVING__PORT", str(client.base_url.port))
        monkeypatch.setenv("RATCHET_ENGINE__URL", inference_url)
        yield waiting


def files(registry: Registry) -> dict[str, bytes]:
    """The files of a home, but those of the groups below it."""
    paths = (path.relative_to(registry.home) for path in registry.home.rglob("*") if path.is_file())
    return {str(path): (registry.home / path).read_bytes() for path in paths if path.parts[0] != "groups"}


def test_every_command_that_takes_a_group_is_tested_here() -> None:
    taking = {name for name, command in commands() if any("--group" in each.opts for each in command.params)}
    assert taking == set(GROUPED)


@pytest.mark.parametrize("command", GROUPED)
def test_a_group_that_is_not_set_is_refused_with_the_known_ones(command: str, groups: dict[str, Registry]) -> None:
    before = [files(each) for each in groups.values()]
    done = invoke(command, *GROUPED[command], group="three")
    assert isinstance(done.exception, ConfigurationError), done.output
    assert str(done.exception) == "the group 'three' is not set: adapters.groups has one, two"
    assert [files(each) for each in groups.values()] == before
    assert not home_of(groups[""].home, "three").exists()


async def test_a_change_of_a_group_is_made_and_written_down_there_alone(
    groups: dict[str, Registry], one: tuple[str, str]
) -> None:
    first, second = one
    others = {name: files(groups[name]) for name in ("", "two")}
    audit, known = groups["one"].audit, len(groups["one"].audit.read())

    async def change(command: str, *arguments: str) -> list[AuditEntry]:
        """What the group's audit log has of it."""
        nonlocal known
        done = await asyncio.to_thread(invoke, command, *arguments, group="one")
        assert done.exit_code == 0, done.exception
        assert {name: files(groups[name]) for name in others} == others
        found = [entry for entry in audit.read()[known:] if entry.action is not Action.NAMED]
        known = len(audit.read())
        return found

    def of(entries: list[AuditEntry]) -> list[tuple[Action, str]]:
        return [(entry.action, entry.subject) for entry in entries]

    assert of(await change("hold", *WHY)) == [(Action.HOLD, BASE)]
    assert of(await change("resume")) == [(Action.RESUMED, BASE)]
    assert (Action.PROMOTED, first) in of(await change("approve", first[:12], *WHY))
    assert of(await change("anchor set", "champion", *WHY)) == [(Action.ANCHORED, first)]
    assert of(await change("drill rollback")) == [(Action.DRILLED, BASE)]
    assert (Action.ROLLED_BACK, BASE) in of(await change("rollback"))
    assert (Action.RESTORED, first) in of(await change("restore", first, "--yes", *WHY))
    assert of(await change("reject", second, *WHY)) == [(Action.MOVED, second)]
    assert groups["one"].refs().champion == first


async def test_what_is_said_of_a_group_is_its_own(
    groups: dict[str, Registry],
    one: tuple[str, str],
    faulty_environments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RATCHET_DOMAIN", '{"environment": "faulty_dark", "suite": "dark"}')
    adapter, waiting = one
    await told("approve", adapter, *WHY, group="one")
    status = await told("status", group="one")
    assert (status["group"], status["champion"]) == ("one", adapter)
    assert [each["adapter"] for each in status["held"]] == [waiting]
    assert (await told("status"))["champion"] == BASE
    assert {each["subject"] for each in await told("history", group="one")} == set(one)
    assert {each["subject"] for each in await told("history", group="two")} == {HELD}
    assert (await told("why", "champion", group="one"))["adapter"] == adapter
    assert (await told("gate show", "champion", group="one"))["adapter"] == adapter
    for command in ("why", "gate show"):
        assert isinstance(invoke(command, adapter, group="two").exception, RatchetError)
    played = await told("gate aa", "--tasks", "2", group="one")
    assert (played["adapter"], played["tasks"]) == (adapter, 2)
    flips = [(await told("gate stats", group=name))["flips"] for name in ("one", "two", "")]
    assert [sum(each.values()) for each in flips] == [2, 0, 0]


def test_a_hold_of_a_group_says_what_ends_it(groups: dict[str, Registry]) -> None:
    assert "`ratchet resume --group one` ends it" in invoke("hold", *WHY, group="one").stdout
    assert "`ratchet resume` ends it" in invoke("hold", *WHY).stdout
