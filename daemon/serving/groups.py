"""The groups that one serve role serves: each has a registry, an alias, a canary and changes of its own.

`role.py` makes them, the gateway asks which one a call belongs to, the control API which one a command means. The
default group is always there, and alone where the settings name no others.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from starlette.types import Scope

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.canary_judge import CanaryJudge
from daemon.serving.drill import RollbackDrill
from daemon.serving.headers import own
from daemon.serving.promotion import Promoter
from daemon.serving.refusals import Refused
from daemon.serving.replicas import Replicas
from daemon.serving.room import Room, Seat
from daemon.serving.settings import ServingSettings
from daemon.serving.shadow import Shadow
from daemon.serving.turn import Turn
from daemon.serving.upstream import Upstream
from streams.access.access import caller_of
from streams.calls.labels import read_labels
from streams.calls.records import CallLabels
from streams.errors import RequestRefusedError
from streams.store.client import StoreClient
from streams.trust.groups import DEFAULT_GROUP, AdapterSettings, home_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServedGroup:
    """One group and its parts; `name` is empty for the default group."""

    name: str
    registry: Registry
    alias: Alias
    canary: Canary
    shadow: Shadow
    turn: Turn
    promoter: Promoter
    drill: RollbackDrill
    judge: CanaryJudge

    @property
    def seat(self) -> Seat | None:
        """Its place among others; None where it is alone."""
        return self.promoter.seat


@dataclass(frozen=True, slots=True)
class Membership:
    """The group of one call, and the labels that it is recorded with: a token may prove another agent than it names."""

    group: ServedGroup
    labels: CallLabels


@dataclass(slots=True, eq=False)
class ServedGroups:
    """All groups by name, the default one first. Belongs to one event loop; call `close` at the end."""

    settings: AdapterSettings
    all: Mapping[str, ServedGroup]
    _warming: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def default(self) -> ServedGroup:
        return self.all[DEFAULT_GROUP]

    def named(self, name: str) -> ServedGroup:
        """The group of that name. Raises `RequestRefusedError`, with 404, where there is none."""
        check_group(name, self.settings)
        return self.all[name]

    def membership(self, scope: Scope, asked: Mapping[str, Any]) -> Membership:
        """Find the group of a call with the fields `asked`.

        A token proves whose it is. A part of the same Ratchet names a group by its alias. Without tokens the call is
        taken at its word.
        """
        caller = caller_of(scope)
        principal = None if caller is None else caller.principal
        labels = read_labels(own(scope["headers"]), asked, principal)
        if caller is not None and caller.is_internal:
            model = asked.get("model")
            named = (group for group in self.all.values() if group.alias.name == model)
            return Membership(next(named, self.default), labels)
        if principal is not None:
            # What is learned from the call must be its group's too.
            name, agent = self.settings.group_of_proved(labels.agent, principal)
            return Membership(self.all[name], labels.model_copy(update={"agent": agent}))
        return Membership(self.all[self.settings.group_of(labels.agent, labels.principal)], labels)

    async def have_loaded(self, group: ServedGroup) -> None:
        """Wait until the champion of a cold group is loaded; all calls that ask for it wait for one load.

        Raises `Refused`, with 503, where that takes longer than `wait_s`, as it does without a free place, or fails.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.wait_s
        while group.alias.is_cold:
            warming = self._warming.get(group.name)
            if warming is None or warming.done():
                warming = self._warming[group.name] = asyncio.create_task(group.promoter.warm())
                warming.add_done_callback(partial(_tell, group.name))
            await asyncio.wait({warming}, timeout=deadline - loop.time())
            if not warming.done() or warming.cancelled() or warming.exception() is not None:
                if group.seat is not None:
                    group.seat.refused += 1
                waited = f"{self.settings.wait_s:g} s"
                raise Refused(503, f"the adapter of this agent's group was not loaded within {waited}; try again soon")

    async def close(self) -> None:
        """End what is being loaded."""
        for task in self._warming.values():
            task.cancel()
        await asyncio.gather(*self._warming.values(), return_exceptions=True)


def serve_groups(
    settings: ServingSettings, adapters: AdapterSettings, replicas: Replicas, upstream: Upstream, store: StoreClient
) -> ServedGroups:
    """All groups of the settings, over the same inference servers."""
    room = Room(replicas, adapters) if adapters.groups else None

    def group(name: str) -> ServedGroup:
        registry = Registry(home_of(settings.home, name), name)
        alias, turn = Alias(alias_of(settings.alias, name)), Turn()
        shadow = Shadow(settings.shadow, upstream)
        canary = Canary(settings.canary, registry.home, shadow)
        promoter = Promoter(registry, replicas, alias, settings.promotion, canary, turn, room)
        probe = settings.promotion.probe
        drill = RollbackDrill(registry, replicas, alias, turn, settings.drill, probe, promoter.seat)
        judge = CanaryJudge(registry, canary, promoter, store)
        return ServedGroup(name, registry, alias, canary, shadow, turn, promoter, drill, judge)

    return ServedGroups(adapters, {name: group(name) for name in _names(adapters)})


def check_group(name: str, settings: AdapterSettings) -> None:
    """Raise `RequestRefusedError`, with 404, for the name of a group that is not set; empty is the default group."""
    if name and name not in settings.groups:
        known = ", ".join(settings.groups) or "none"
        message = f"the group {name!r:.60} is not set: adapters.groups has {known}"
        raise RequestRefusedError(404, "group_not_found", message)


def alias_of(alias: str, group: str) -> str:
    """The alias of a group: that of the settings with the group's name behind it."""
    return f"{alias}-{group}" if group else alias


def _names(adapters: AdapterSettings) -> Iterator[str]:
    yield DEFAULT_GROUP
    yield from adapters.groups


def _tell(name: str, warming: asyncio.Task[None]) -> None:
    if not warming.cancelled() and (error := warming.exception()) is not None:
        log.warning("a group's adapter could not be loaded", group=name or "default", error=str(error))
