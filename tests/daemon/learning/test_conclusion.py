"""What a cycle does with the result of a trial: the candidate serves, waits for a person, or ends."""

import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from daemon.config import Settings
from daemon.learning.loop import ACTOR, Loop
from daemon.learning.trials import conclude
from daemon.registry.approval import Approval
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CycleReport
from daemon.serving.control_client import ControlClient
from daemon.serving.promotion import PromotionSettings
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.report import GateReport
from evaluation.settings import GateSettings
from learners.adapters import AdapterStore
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient

MakeAdapter = Callable[..., str]
Conclude = Callable[..., Awaitable[CycleReport]]


@pytest.fixture
async def concluded(serving: httpx.AsyncClient, registry: Registry, policy: PolicyClient) -> Conclude:
    """Concludes a cycle in which `adapter` was judged with `verdict` against `champion`."""

    async def conclude_one(
        adapter: str, verdict: Verdict, approval: Approval = Approval.ON_HOLD, champion: str = BASE
    ) -> CycleReport:
        settings = Settings(home=registry.home, promotion=PromotionSettings(approval=approval)).settled()
        gates = (GateResult(gate="sentinels", verdict=verdict, reason="It looks so."),)
        report = GateReport(verdict=verdict, reason="It looks so.", gates=gates, settings=GateSettings(), held_out=None)
        async with (
            ControlClient(str(serving.base_url)) as control,
            StoreClient("http://127.0.0.1:9") as store,
        ):
            loop = Loop(
                settings=settings,
                base=registry.home,
                registry=registry,
                adapters=AdapterStore(registry.home / "adapters"),
                store=store,
                policy=policy,
                control=control,
                pool=SandboxPool("textworld_express"),
                tasks=(),
                held_out=(),
                out_of_domain=(),
            )
            return await conclude(loop, adapter, champion, report, time.monotonic())

    return conclude_one


async def test_a_verdict_and_the_setting_decide_what_becomes_of_a_candidate(
    concluded: Conclude, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapters: dict[State, str] = {}
    for verdict, approval, state in (
        (Verdict.HOLD, Approval.NEVER, State.INCONCLUSIVE),
        (Verdict.PROMOTE, Approval.ALWAYS, State.HELD),
        (Verdict.PROMOTE, Approval.ON_HOLD, State.SERVING),
    ):
        adapter = make_adapter(len(adapters), last=State.EVALUATING)
        report = await concluded(adapter, verdict, approval)
        assert registry.state(adapter) is state
        assert (report.verdict, report.gates[0].gate) == (verdict, "sentinels")
        assert registry.refs().champion == (adapter if state is State.SERVING else BASE)
        assert [entry.cycle for entry in registry.audit.read() if entry.cycle][-1] == report
        adapters[state] = adapter
    assert [(one.adapter, one.against) for one in registry.held(60)] == [(adapters[State.HELD], BASE)]


async def test_the_loop_goes_on_past_a_held_candidate_which_then_cannot_take_the_newer_champions_place(
    concluded: Conclude, serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    held, better = make_adapter(1, last=State.EVALUATING), make_adapter(2, last=State.EVALUATING)
    await concluded(held, Verdict.HOLD)
    second = await concluded(better, Verdict.PROMOTE)
    assert (second.cycle, registry.refs().champion, registry.state(held)) == (2, better, State.HELD)
    refused = await serving.post("/approve", json={"digest": held, "reason": "fine", "actor": "anna"})
    assert refused.status_code == 409
    assert "judged against the base model" in refused.text
    assert registry.refs().champion == better


async def test_what_won_against_a_champion_that_was_replaced_during_the_cycle_does_not_serve(
    concluded: Conclude, serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    held, playing = make_adapter(1, last=State.HELD), make_adapter(2, last=State.EVALUATING)
    approved = await serving.post("/approve", json={"digest": held, "reason": "fine", "actor": "anna"})
    assert approved.is_success
    report = await concluded(playing, Verdict.PROMOTE)
    assert registry.refs().champion == held
    assert registry.state(playing) is State.INCONCLUSIVE
    assert "was replaced meanwhile" in report.reason


async def test_an_approval_that_comes_between_the_verdict_and_the_promotion_stands(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    held, won = make_adapter(1, last=State.HELD), make_adapter(2, last=State.EVALUATING)
    registry.enter(won, State.APPROVED, ACTOR, "It is better.", against=BASE)
    assert (await serving.post("/approve", json={"digest": held, "reason": "fine", "actor": "anna"})).is_success
    late = await serving.post("/promote", json={"digest": won, "reason": "It is better.", "actor": ACTOR})
    assert late.status_code == 409
    assert "judged against the base model" in late.text
    assert (registry.refs().champion, registry.state(won)) == (held, State.APPROVED)
