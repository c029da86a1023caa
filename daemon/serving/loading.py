"""Loads adapters into the inference server under names of their own, attests them, and unloads them."""

import asyncio

import structlog

from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.attested import Attested
from evaluation.attestation import Probes, measure
from evaluation.settings import ProbeSettings
from learners.adapters import AdapterStore
from streams.errors import PolicyError, RatchetError
from streams.policy.client import PolicyClient

log = structlog.get_logger()

# Who gives the names that serve; the learner names its candidates itself.
ACTOR = "serve"


class Loader:
    """Has the inference server hold what is to serve. The promoter calls it."""

    def __init__(self, registry: Registry, policy: PolicyClient, settings: ProbeSettings) -> None:
        self._registry = registry
        self._policy = policy
        self._settings = settings
        self._adapters = AdapterStore(registry.home / "adapters")
        self.attested = Attested()

    async def loaded(self) -> set[str]:
        """The names that the inference server has now. Raises `PolicyError`."""
        return {model.name for model in await self._policy.models()}

    async def bring_up(self, adapter: str) -> str:
        """Load `adapter` under a fresh name and attest it; the name.

        Raises `RatchetError` when its files are not those of its digest and signature, before they are loaded, or when
        it cannot be loaded or attested.
        """
        if adapter == BASE:
            return BASE
        folder = self._registry.adapter_folder(adapter)
        probes = Probes.read(folder)
        await asyncio.to_thread(self._adapters.check, adapter)
        served = self._registry.name(adapter, ACTOR, "to serve")
        await self._policy.load_adapter(served, str(folder.resolve()))
        try:
            proof = await measure(self._policy, served, BASE, probes)
            self.attested.note(adapter, proof, passed=False)
            proof.check(served, BASE, self._settings)
            self.attested.note(adapter, proof, passed=True)
        except RatchetError:
            await self.take_down(served)
            raise
        log.info("attested", served=served, deviation=round(proof.deviation, 4), effect=round(proof.effect, 4))
        return served

    async def take_down(self, served: str) -> None:
        """Unload what is served under that name; the base model stays."""
        if served == BASE:
            return
        try:
            await self._policy.unload_adapter(served)
        except PolicyError as error:
            # It costs memory, and nothing will ever ask for that name again.
            log.warning("an adapter could not be unloaded", served=served, error=str(error))
