"""The judge of a canary where the store or the inference server is away; `test_canary_judged.py` has a whole one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from daemon.registry.canaries import last_canary, running_canary, start_canary
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import CanaryEnd, CanaryStart
from daemon.serving.alias import Alias
from daemon.serving.audit_chain import AuditChain
from daemon.serving.canary import Canary, CanaryPhase
from daemon.serving.canary_judge import CanaryJudge
from daemon.serving.canary_metrics import CanaryMetrics
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from evaluation.settings import CanarySettings
from streams.errors import StoreError
from streams.policy.client import PolicyClient
from streams.store.client import StoreClient
from tests.waiting import eventually

A = "a" * 64
NOWHERE = "http://127.0.0.1:9"


@asynccontextmanager
async def judged(home: Path, **settings: float) -> AsyncIterator[tuple[CanaryJudge, Canary, Registry]]:
    """A canary that runs, its judge, and no server that answers."""
    registry = Registry(home)
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        registry.enter(A, state, "learner", "a test")
    start = CanaryStart(champion="base", share=0.5, salt="salt")
    canary = Canary(CanarySettings(share=0.5, **settings), home)
    canary.prepare(start)
    canary.resume(start_canary(registry, A, start, "learner", "better"))
    canary.answer("ratchet-9")
    alias = Alias("assistant")
    alias.point_to("base", "base")
    async with PolicyClient(NOWHERE, 1) as policy, StoreClient(NOWHERE, 1) as store:
        promoter = Promoter(registry, Replicas([policy]), alias, PromotionSettings(drain_timeout_s=1), canary)
        yield CanaryJudge(registry, canary, promoter, store), canary, registry


async def test_a_store_that_is_away_leaves_the_canary_as_it_is(tmp_path: Path) -> None:
    async with judged(tmp_path) as (judge, canary, registry):
        with pytest.raises(StoreError):
            await judge.judge()
        assert (canary.phase, registry.state(A)) == (CanaryPhase.ANSWERING, State.CANARY)


async def test_a_store_that_is_away_until_the_time_is_over_proves_nothing(tmp_path: Path) -> None:
    async with judged(tmp_path, most_hours=1e-9) as (judge, canary, registry):
        await judge.judge()
        report = last_canary(registry)
        assert report is not None
        assert (report.ended, canary.phase) == (CanaryEnd.INCONCLUSIVE, CanaryPhase.OFF)
        assert "nothing is proved" in report.reason
        assert (registry.state(A), registry.refs().champion) == (State.INCONCLUSIVE, "base")
        await judge.judge()  # nothing runs any more


async def test_errors_of_the_candidate_end_the_canary_though_no_outcome_can_be_read(tmp_path: Path) -> None:
    async with judged(tmp_path) as (judge, canary, registry):
        running = asyncio.create_task(judge.run())
        for _ in range(50):
            canary.count(candidate=False, failed=False)
        for _ in range(5):
            canary.count(candidate=True, failed=True)
        await eventually(lambda: running_canary(registry) is None, "the canary ends")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        report = last_canary(registry)
        assert report is not None
        assert (report.ended, report.candidate_errors) == (CanaryEnd.ROLLED_BACK, 5)
        assert "failed on 5 of 5 requests to the candidate" in report.reason
        assert registry.state(A) is State.ROLLED_BACK


async def test_metrics_are_of_the_canary_that_runs_and_of_all_that_ended(tmp_path: Path) -> None:
    async with judged(tmp_path, most_hours=1e-9) as (judge, canary, registry):
        canary.count(candidate=True, failed=True)

        def samples() -> dict[tuple[str, ...], float]:
            return {
                (sample.name, *sample.labels.values()): sample.value
                for metric in CanaryMetrics(AuditChain(registry.audit), canary).collect()
                for sample in metric.samples
            }

        seen = samples()
        assert seen["ratchet_canary_share",] == 0.5
        assert seen["ratchet_canary_errors", "candidate"] == seen["ratchet_canary_requests", "candidate"] == 1
        assert seen["ratchet_canary_evidence", "better"] == 1
        assert seen["ratchet_canaries_total", "inconclusive"] == 0
        await judge.judge()
        seen = samples()
        assert seen["ratchet_canary_share",] == 0
        assert seen["ratchet_canaries_total", "inconclusive"] == 1
        assert ("ratchet_canary_errors", "candidate") not in seen
