"""Options that several commands share, and what they run on."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from daemon.config import Settings
from daemon.registry.hints import command
from daemon.registry.schemas import Change
from daemon.serving.control_client import ControlClient
from streams.assembly.client import AssemblyClient
from streams.assembly.status import AssemblyStatus
from streams.errors import IntakeError
from streams.kafka.settings import KafkaSettings

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; without it ratchet.toml, if there is one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
GroupOption = Annotated[str, typer.Option("--group", help="A group of agents or tenants, not the default one.")]


def run_async(work: Awaitable[Result], new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Result:
    """Run `work` on an event loop of its own, made by `new_loop` where that is given, and return its result."""

    async def run() -> Result:
        return await work

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run())


def operator_name() -> str:
    """The user who gives a command, for the audit log; by number where the machine has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


async def find_kafka(settings: Settings) -> KafkaSettings:
    """The cluster that Ratchet runs on. Where none is configured the running Ratchet is asked for its embedded broker.

    Raises `ControlError` when nothing runs that could be asked.
    """
    if settings.kafka.bootstrap:
        return settings.kafka
    async with ControlClient(settings.control_url) as control:
        return settings.kafka.model_copy(update={"bootstrap": (await control.status()).bootstrap})


def on_hold(group: str) -> str:
    """Say that promotion of a group is on hold, and what ends that."""
    return f"promotion is on hold: what passes its gates waits for a person, until {command('resume', group)}"


def replaced_by(change: Change) -> str:
    """The name of what served before; of a champion that was not loaded, its digest."""
    return change.from_name or change.from_adapter[:12]


def control_of(settings: Settings, group: str) -> ControlClient:
    """A client of the control API that asks about `group`. Raises `ConfigurationError` for one that is not set."""
    settings.of_group(group)
    return ControlClient(settings.control_url, group=group)


async def assembly_status(settings: Settings) -> AssemblyStatus | None:
    """What the assembler says of itself; None where it does not answer, since the role need not run here."""
    async with AssemblyClient(settings.assembly_url) as assembler:
        try:
            return await assembler.status()
        except IntakeError:
            return None
