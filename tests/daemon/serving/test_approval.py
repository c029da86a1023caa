"""Approvals over a real engine: what a person approves is loaded, attested, and takes the champion's place."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from daemon.commands.diagnosis import Health
from daemon.commands.running import held_candidates
from daemon.registry.audit import Action, AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Change, StatusReport
from daemon.serving.promotion import PromotionSettings
from evaluation.settings import CanarySettings
from tests.daemon.conftest import serve_role
from tests.daemon.serving.test_control import figures
from tests.waiting import eventually

MakeAdapter = Callable[..., str]


def decision(adapter: str, actor: str = "anna", reason: str = "I read its episodes") -> dict[str, str]:
    return {"digest": adapter, "reason": reason, "actor": actor}


async def status(serving: httpx.AsyncClient) -> StatusReport:
    return StatusReport.model_validate((await serving.get("/status")).json())


def lapsing_after(age_s: float) -> dict[str, Any]:
    return {"promotion": PromotionSettings(approval_age_s=age_s), "refresh_s": 0.2}


def message(response: httpx.Response) -> str:
    assert response.status_code == 409, response.text
    return str(response.json()["error"]["message"])


async def test_a_held_candidate_is_shown_and_serves_once_a_person_approves_it(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=State.HELD)
    assert [(one.adapter, one.reason, one.obstacle) for one in (await status(serving)).held] == [
        (adapter, "a test", None)
    ]
    assert (await figures(serving))["ratchet_held_adapters"] == [({}, 1)]
    check = held_candidates(await status(serving))
    assert (check.status, check.message.startswith("1 candidates wait for a person")) == (Health.WARNING, True)
    change = Change.model_validate((await serving.post("/approve", json=decision(adapter))).json())
    assert (change.from_adapter, change.to_adapter) == (BASE, adapter)
    shown = await status(serving)
    assert (shown.champion, shown.served, shown.held) == (adapter, change.to_name, ())
    assert (await figures(serving))["ratchet_held_adapters"] == [({}, 0)]
    said = [(entry.state, entry.actor, entry.reason) for entry in registry.audit.read() if entry.actor == "anna"]
    assert said == [(state, "anna", "I read its episodes") for state in (State.APPROVED, State.SERVING)]
    assert "not held but serving, by anna at" in message(await serving.post("/approve", json=decision(adapter, "ben")))
    assert "not held but serving, by anna at" in message(await serving.post("/reject", json=decision(adapter, "ben")))


async def test_a_rejected_candidate_ends_and_nothing_else_changes(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=State.HELD)
    entry = AuditEntry.model_validate((await serving.post("/reject", json=decision(adapter, reason="rude"))).json())
    assert (entry.subject, entry.state, entry.actor, entry.reason) == (adapter, State.REJECTED, "anna", "rude")
    assert "not held but rejected, by anna at" in message(await serving.post("/approve", json=decision(adapter)))
    assert ((await status(serving)).held, registry.refs()) == ((), Refs())


async def test_what_is_held_is_not_promoted_without_a_persons_approval(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=State.HELD)
    assert "is held and cannot become serving" in message(await serving.post("/promote", json=decision(adapter)))
    rollback = {"to": adapter, "reason": "back door", "actor": "anna"}
    assert "is held and cannot become serving" in message(await serving.post("/rollback", json=rollback))
    assert registry.state(adapter) is State.HELD


async def test_a_candidate_that_is_not_what_was_trained_stays_held_although_it_is_approved(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    wrong = make_adapter(3, scale=0.0, trained_scale=0.3, last=State.HELD)
    assert "base still serves" in message(await serving.post("/approve", json=decision(wrong)))
    assert (registry.state(wrong), registry.refs()) == (State.HELD, Refs())
    assert [one.adapter for one in (await status(serving)).held] == [wrong]
    failure = registry.audit.read()[-1]
    assert (failure.action, failure.actor) == (Action.PROMOTION_FAILED, "anna")


async def test_of_several_people_who_decide_at_once_one_is_obeyed_and_the_others_are_told(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1, last=State.HELD), make_adapter(2, last=State.HELD)
    replies = await asyncio.gather(
        *(
            serving.post(path, json=decision(adapter, actor))
            for path, adapter, actor in (
                ("/approve", first, "anna"),
                ("/approve", second, "ben"),
                ("/approve", first, "cleo"),
                ("/reject", second, "dora"),
            )
        )
    )
    assert all(reply.status_code in (200, 409) for reply in replies)
    # `first` and `second` were judged against the base model: only one of them can have taken its place.
    assert [reply.is_success for reply in replies[:3]].count(True) == 1
    states = {registry.state(adapter) for adapter in (first, second)}
    assert State.SERVING in states
    champion = registry.refs().champion
    assert registry.state(champion) is State.SERVING
    assert (await status(serving)).served is not None
    assert registry.state(second) in (State.REJECTED, State.SERVING)
    assert registry.audit.verify() == len(registry.audit.read())


async def test_a_candidate_that_is_rejected_while_it_is_loaded_does_not_serve(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=State.HELD)
    approval = asyncio.create_task(serving.post("/approve", json=decision(adapter)))

    def is_named() -> bool:
        return any(entry.subject == adapter and entry.action is Action.NAMED for entry in registry.audit.read())

    await eventually(is_named)
    registry.reject(adapter, "ben", "not this one")
    assert "not held but rejected, by ben at" in message(await approval)
    assert registry.refs() == Refs()
    served = (await status(serving)).served_models
    assert served is not None
    assert not any(name.endswith(adapter[:12]) for name in served)


async def test_the_serve_role_ends_what_nobody_decided_about_in_time(
    registry: Registry, inference_url: str, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=State.HELD)
    async with serve_role(registry, inference_url, **lapsing_after(0.5)) as serving:
        await eventually(lambda: registry.state(adapter) is State.INCONCLUSIVE)
        assert "It lapsed" in message(await serving.post("/approve", json=decision(adapter)))
        assert (await status(serving)).held == ()


async def test_an_approval_that_comes_too_late_is_refused_before_the_role_has_looked(
    registry: Registry, inference_url: str, make_adapter: MakeAdapter
) -> None:
    async with serve_role(registry, inference_url, **lapsing_after(0.001)) as serving:
        adapter = make_adapter(1, last=State.HELD)
        assert "It lapsed" in message(await serving.post("/approve", json=decision(adapter)))
        assert registry.refs() == Refs()


async def test_a_decision_without_a_reason_or_a_name_is_refused(serving: httpx.AsyncClient) -> None:
    faults: tuple[dict[str, Any], ...] = (
        *({"reason": ""}, {"reason": "  \n"}, {"actor": ""}),
        *({"digest": "abc"}, {"digest": "base"}, {"force": True}),
    )
    for path in ("/approve", "/reject"):
        for fault in faults:
            response = await serving.post(path, json=decision("f" * 64) | fault)
            assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request"), fault


async def test_an_adapter_that_nobody_knows_is_a_conflict(serving: httpx.AsyncClient) -> None:
    for path in ("/approve", "/reject"):
        assert "is not known" in message(await serving.post(path, json=decision("f" * 64)))


async def test_where_the_settings_ask_for_a_canary_an_approval_begins_one(
    registry: Registry, inference_url: str, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1, last=State.HELD), make_adapter(2, last=State.HELD)
    wrong = make_adapter(3, scale=0.0, last=State.HELD)
    async with serve_role(registry, inference_url, canary=CanarySettings(share=0.2)) as serving:
        assert "no-op" in message(await serving.post("/approve", json=decision(wrong)))
        assert registry.state(wrong) is State.HELD
        change = Change.model_validate((await serving.post("/approve", json=decision(first))).json())
        assert (change.to_adapter, change.share) == (first, 0.2)
        assert (registry.refs(), registry.state(first)) == (Refs(), State.CANARY)
        approved = [(one.actor, one.reason) for one in registry.audit.read() if one.state is State.APPROVED]
        assert approved == [("anna", "I read its episodes")]
        assert "the canary of" in message(await serving.post("/approve", json=decision(second, "ben")))
        assert "not held but canary" in message(await serving.post("/reject", json=decision(first, "ben")))
        assert registry.state(second) is State.HELD
