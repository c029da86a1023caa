"""Drills of the rollback, over a real engine: agents notice nothing of them."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import httpx
import pytest

from daemon.registry.audit import Action
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Drill
from daemon.serving.alias import Alias
from daemon.serving.drill import RollbackDrill
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from daemon.serving.settings import DrillSettings
from daemon.serving.turn import Turn
from evaluation.settings import CanarySettings
from streams.errors import PromotionError
from streams.policy.client import PolicyClient
from tests.daemon.conftest import serve_role
from tests.daemon.serving.test_approval import decision, status
from tests.daemon.serving.test_control import figures
from tests.daemon.serving.test_promotion import loaded
from tests.waiting import eventually

MakeAdapter = Callable[..., str]

ASKED = {"reason": "before the holidays", "actor": "anna"}


async def drilled(serving: httpx.AsyncClient) -> Drill:
    """Hold a drill; again where a look at what serves had the turn, as the answer asks for."""
    answer: httpx.Response | None = None

    async def has_a_turn() -> bool:
        nonlocal answer
        answer = await serving.post("/drill", json=ASKED)
        return answer.status_code != HTTPStatus.CONFLICT

    await eventually(has_a_turn, "nothing else changes what serves")
    assert answer is not None
    assert answer.is_success, answer.text
    return Drill.model_validate(answer.json())


async def test_a_drill_has_the_previous_adapter_reply_and_changes_nothing_that_serves(
    serving: httpx.AsyncClient, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    for adapter in (first, second):
        assert (await serving.post("/promote", json=decision(adapter, "learner"))).is_success
    before, refs, held = await status(serving), registry.refs(), await loaded(policy)

    drill = await drilled(serving)
    assert (drill.adapter, drill.failed, drill.flip_s) == (first, "", None)
    assert drill.seconds is not None
    after = await status(serving)
    assert (after.served, registry.refs(), await loaded(policy)) == (before.served, refs, held)
    assert after.drill == drill
    entry = registry.audit.read()[-1]
    assert (entry.action, entry.subject, entry.actor, entry.drill) == (Action.DRILLED, first, "anna", drill)
    shown = await figures(serving)
    assert shown["ratchet_rollback_drill_seconds"] == [({}, drill.seconds)]
    assert shown["ratchet_rollback_drill_failures_total"] == [({}, 0)]
    (_, when), *_ = shown["ratchet_rollback_drill_last_success_timestamp_seconds"]
    assert when == drill.began.timestamp()
    assert registry.audit.verify() == len(registry.audit.read())


async def test_after_a_rollback_a_drill_tells_how_long_the_change_of_who_serves_took(
    serving: httpx.AsyncClient, make_adapter: MakeAdapter
) -> None:
    assert (await serving.post("/promote", json=decision(make_adapter(1), "learner"))).is_success
    assert (await serving.post("/rollback", json=ASKED)).is_success
    drill = await drilled(serving)
    assert drill.adapter == BASE
    assert drill.flip_s is not None
    assert drill.flip_s > 0


async def test_without_a_previous_adapter_the_base_model_is_drilled(serving: httpx.AsyncClient) -> None:
    drill = await drilled(serving)
    assert (drill.adapter, drill.failed) == (BASE, "")
    assert drill.seconds is not None


async def test_a_drill_finds_that_the_previous_adapter_is_damaged(
    serving: httpx.AsyncClient, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    for adapter in (first, second):
        assert (await serving.post("/promote", json=decision(adapter, "learner"))).is_success
    held = await loaded(policy)
    (registry.adapter_folder(first) / "adapter_model.safetensors").write_bytes(b"torn")
    drill = await drilled(serving)
    assert drill.seconds is None
    assert "adapter_model.safetensors" in drill.failed or first[:12] in drill.failed
    assert await loaded(policy) == held
    shown = await figures(serving)
    assert shown["ratchet_rollback_drill_failures_total"] == [({}, 1)]
    assert "ratchet_rollback_drill_seconds" not in shown


async def test_a_drill_is_held_by_itself_once_it_is_due(
    inference_url: str, registry: Registry, make_adapter: MakeAdapter
) -> None:
    make_adapter(1)  # the log begins
    async with serve_role(registry, inference_url, drill=DrillSettings(every_s=0.2)) as serving:

        async def was_held() -> bool:
            return (await status(serving)).drill is not None

        await eventually(was_held, "a drill is held")
    entry = next(entry for entry in registry.audit.read() if entry.action is Action.DRILLED)
    assert (entry.actor, entry.subject) == ("serve", BASE)


async def test_while_a_canary_runs_no_drill_is_held(
    inference_url: str, registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with serve_role(registry, inference_url, canary=CanarySettings(share=0.5)) as serving:
        assert (await serving.post("/promote", json=decision(make_adapter(1), "learner"))).is_success
        answer = await serving.post("/drill", json=ASKED)
        assert (answer.status_code, registry.audit.read()[-1].action) == (409, Action.CANARY_STARTED)
        assert "a canary runs" in answer.json()["error"]["message"]


@pytest.mark.slow
async def test_a_change_does_not_wait_for_a_drill_and_a_drill_not_for_a_change(
    registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    alias, turn = Alias("assistant"), Turn()
    replicas = Replicas([policy])
    promoter = Promoter(registry, replicas, alias, PromotionSettings(), None, turn)
    await promoter.reconcile()
    for adapter in (first, second):
        await promoter.promote(adapter, "anna", "better")
    drill = RollbackDrill(registry, replicas, alias, turn, DrillSettings(), PromotionSettings().probe)
    holding = asyncio.create_task(drill.hold("anna", "now"))
    await eventually(lambda: turn.lent, "the drill has begun")
    back = await promoter.roll_back(None, "anna", "complaints")
    assert alias.served == back.to_name
    with pytest.raises(PromotionError, match="broken off"):
        await holding
    async with turn:
        with pytest.raises(PromotionError, match="is changing at this moment"):
            await drill.hold("anna", "now")
    assert Action.DRILLED not in {entry.action for entry in registry.audit.read()}
    given = registry.names_given_by("serve")

    async def only_what_serves() -> bool:
        return await loaded(policy) & given == {alias.served}

    await eventually(only_what_serves, "what the drill loaded is unloaded")
