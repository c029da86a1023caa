"""Has the inference servers load adapters under names of their own, attests these, and has them unloaded."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.attested import Attested
from daemon.serving.replicas import Replica, Replicas
from daemon.serving.room import ACTOR, Seat
from evaluation.attestation import Attestation, Probes, measure
from evaluation.settings import ProbeSettings
from learners.adapters import AdapterStore
from ratchet_client.errors import RatchetError
from streams.errors import PolicyError, PromotionError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Fit:
    """An adapter whose files are those of its digest and signature, and its trainer's record."""

    adapter: str
    folder: str
    probes: Probes


class Loader:
    """Has the inference servers hold what is to serve. The promoter and the reconciler call it.

    With a `seat` each adapter is loaded in a place of its room.
    """

    def __init__(
        self, registry: Registry, replicas: Replicas, settings: ProbeSettings, seat: Seat | None = None
    ) -> None:
        self._registry = registry
        self._replicas = replicas
        self._settings = settings
        self._adapters = AdapterStore(registry.home / "adapters")
        self._seat = seat
        self.attested = Attested()

    async def bring_up(self, adapter: str) -> str:
        """Have every server that answers load `adapter` under one fresh name, and attest it there; the name.

        A server that cannot where another can is out of the rotation until it can. Raises `RatchetError` when none
        can, or when the adapter's files are not those of its digest and signature, before they are loaded.
        """
        if adapter == BASE:
            for replica in self._replicas.usable():
                replica.failure = ""
            return BASE
        fit = await self._check(adapter)
        usable = self._replicas.usable()
        if not usable:
            raise PolicyError(f"no inference server can be used: {self._replicas.away_reason()}")
        served = self._registry.name(adapter, ACTOR, "to serve")
        async with self._place(served, usable):
            found = await asyncio.gather(
                *(self._load(replica, served, served, fit) for replica in usable), return_exceptions=True
            )
        errors = {each: error for each, error in zip(usable, found, strict=True) if error is not None}
        unforeseen = next((error for error in errors.values() if not isinstance(error, RatchetError)), None)
        if unforeseen is not None or len(errors) == len(usable):
            for replica in usable:
                await self._take_down(replica, served)
            raise unforeseen or errors[usable[0]]
        for replica, error in errors.items():
            self._failed(replica, served, error)
        return served

    async def bring_back(self, replica: Replica, adapter: str, served: str) -> None:
        """Have one server hold `adapter` too, which the gateway calls `served` and others hold already.

        It gets a name of its own there: it may have had the other one before. One that fails is tried again later.
        """
        if adapter == BASE:
            return
        name = served
        try:
            fit = await self._check(adapter)
            name = self._registry.name(adapter, ACTOR, f"to serve at {replica.url}")
            async with self._place(name, (replica,)):
                await self._load(replica, served, name, fit)
        except (RatchetError, OSError) as error:
            self._failed(replica, name, error)
            return
        log.info("an inference server takes requests again", url=replica.url, served=served, name=name)

    async def attest_again(self, replica: Replica, adapter: str, served: str) -> None:
        """Attest what a server holds as `served` again, if it is time to; it is unloaded if it is not `adapter`."""
        if adapter == BASE or time.monotonic() - replica.attested_at[served] < self._settings.every_s:
            return
        name = replica.held[served]
        try:
            probes = Probes.read(self._registry.adapter_folder(adapter))
            await self._attest(replica, name, adapter, probes)
        except PromotionError as error:
            replica.refuted += 1
            self._failed(replica, name, error)
            await self._unload(replica, replica.drop(served) or name)
        except RatchetError as error:
            # It proves nothing: that a server is away or busy is seen elsewhere.
            log.warning("an adapter could not be attested again", url=replica.url, served=name, error=str(error))
        else:
            replica.hold(served, name, time.monotonic())

    async def take_down(self, served: str) -> None:
        """Unload what the gateway calls `served` everywhere; the base model stays."""
        if served != BASE:
            await asyncio.gather(*(self._take_down(replica, served) for replica in self._replicas.all))

    async def take_down_stale(self, kept: Collection[str], loading: Collection[str] = ()) -> None:
        """Unload what nothing asks for any more: adapters that this role loaded, but for those called `kept`.

        Those of the names `loading` are on their way.
        """
        given = self._registry.names_given_by(ACTOR) - set(loading)
        for replica in self._replicas.usable():
            wanted = {name for served, name in replica.held.items() if served in kept}
            for name in sorted(replica.models & given - wanted):
                await self._unload(replica, name)

    @asynccontextmanager
    async def _place(self, name: str, at: Sequence[Replica]) -> AsyncIterator[None]:
        if self._seat is None:
            yield
            return
        async with self._seat.room.place(name, self._seat, at):
            yield

    async def _check(self, adapter: str) -> _Fit:
        folder = self._registry.adapter_folder(adapter)
        probes = Probes.read(folder)
        await asyncio.to_thread(self._adapters.check, adapter)
        return _Fit(adapter, str(folder.resolve()), probes)

    async def _load(self, replica: Replica, served: str, name: str, fit: _Fit) -> None:
        """Load and attest an adapter as `name`; it is unloaded again where that fails."""
        loading = asyncio.ensure_future(replica.policy.load_adapter(name, fit.folder))
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            # The server goes on loading, and knows no such adapter before it has it.
            with suppress(PolicyError):
                await loading
                await self._unload(replica, name)
            raise
        try:
            proof = await self._attest(replica, name, fit.adapter, fit.probes)
        except (RatchetError, asyncio.CancelledError) as error:
            replica.refuted += isinstance(error, PromotionError)
            await self._unload(replica, name)
            raise
        replica.hold(served, name, time.monotonic())
        replica.models |= {name}
        replica.failure = ""
        replica.backoff.reset()
        deviation, effect = round(proof.deviation, 4), round(proof.effect, 4)
        log.info("attested", served=name, url=replica.url, deviation=deviation, effect=effect)

    async def _attest(self, replica: Replica, name: str, adapter: str, probes: Probes) -> Attestation:
        """Prove that the server serves `adapter` as `name`. Raises `PromotionError` where it does not."""
        proof = await measure(replica.policy, name, BASE, probes)
        self.attested.note(adapter, proof, passed=False)
        proof.check(name, BASE, self._settings)
        self.attested.note(adapter, proof, passed=True)
        return proof

    async def _take_down(self, replica: Replica, served: str) -> None:
        name = replica.drop(served)
        if name is not None and not replica.away:
            await self._unload(replica, name)

    async def _unload(self, replica: Replica, name: str) -> None:
        try:
            await replica.policy.unload_adapter(name)
        except PolicyError as error:
            # It costs memory, and nothing will ever ask for that name again.
            log.warning("an adapter could not be unloaded", served=name, url=replica.url, error=str(error))
        replica.models -= {name}

    def _failed(self, replica: Replica, name: str, error: BaseException) -> None:
        replica.failure = f"{name} cannot serve there: {error}"
        replica.backoff.failed()
        log.warning(
            "an inference server is out of the rotation",
            url=replica.url,
            served=name,
            error=str(error),
            next_try_s=replica.backoff.pause_s,
        )
