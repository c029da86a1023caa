"""Over a real engine: a rollback is undone by a person's word, and holds stop what is promoted by itself."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Change, StatusReport
from daemon.serving.promotion import PromotionSettings
from evaluation.settings import CanarySettings
from tests.daemon.conftest import serve_role
from tests.daemon.serving.test_approval import decision, message, status
from tests.daemon.serving.test_control import figures

MakeAdapter = Callable[..., str]

COMPLAINT = {"reason": "complaints", "actor": "anna"}


async def changed(serving: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Change:
    response = await serving.post(path, json=body)
    assert response.is_success, response.text
    return Change.model_validate(response.json())


@pytest.mark.slow
async def test_what_was_rolled_back_serves_again_once_a_person_restores_it_and_may_be_rolled_back_again(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    for adapter in (first, second):
        await changed(serving, "/promote", decision(adapter, "learner"))
    back = await changed(serving, "/rollback", COMPLAINT)
    assert (back.to_adapter, back.on_hold, registry.state(second)) == (first, True, State.ROLLED_BACK)

    restored = await changed(serving, "/restore", decision(second, reason="it was the wrong one"))
    assert (restored.from_adapter, restored.to_adapter, restored.on_hold) == (first, second, True)
    assert restored.to_name not in (back.from_name, back.to_name)
    assert registry.refs() == Refs(champion=second, previous=first)
    assert (registry.state(first), registry.state(second)) == (State.RETIRED, State.SERVING)
    shown = await status(serving)
    assert (shown.champion, shown.served) == (second, restored.to_name)
    assert shown.served_models is not None
    assert back.to_name not in shown.served_models
    entry = next(entry for entry in registry.audit.read() if entry.action is Action.RESTORED)
    assert (entry.subject, entry.actor, entry.reason, entry.replaced) == (
        *(second, "anna", "it was the wrong one", first),
    )
    assert (await figures(serving))["ratchet_restores_total"] == [({}, 1)]

    again = await changed(serving, "/rollback", COMPLAINT)
    assert (again.to_adapter, registry.refs()) == (first, Refs(champion=first, previous=BASE))
    await changed(serving, "/restore", decision(second))
    assert registry.audit.verify() == len(registry.audit.read())


@pytest.mark.slow
async def test_a_restore_that_is_asked_for_twice_changes_nothing_the_second_time(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await changed(serving, "/promote", decision(adapter))
    await changed(serving, "/rollback", COMPLAINT)
    once = await changed(serving, "/restore", decision(adapter))
    entries = registry.audit.read()
    twice = await changed(serving, "/restore", decision(adapter))
    assert (twice.from_name, twice.to_name) == (once.to_name, once.to_name)
    assert registry.audit.read() == entries


@pytest.mark.slow
async def test_a_restored_adapter_that_is_not_what_was_trained_is_refused_and_what_serves_goes_on(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await changed(serving, "/promote", decision(adapter))
    await changed(serving, "/rollback", COMPLAINT)
    weights = registry.adapter_folder(adapter) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "base still serves" in message(await serving.post("/restore", json=decision(adapter)))
    assert (registry.refs(), registry.state(adapter)) == (Refs(), State.ROLLED_BACK)
    assert registry.audit.read()[-1].action is Action.PROMOTION_FAILED


@pytest.mark.parametrize("state", [State.APPROVED, State.HELD, State.REJECTED, State.QUARANTINED])
async def test_what_was_never_promoted_is_not_restored(
    state: State, serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, last=state)
    refused = message(await serving.post("/restore", json=decision(adapter)))
    assert f"it was not rolled back but is {state.value}, by learner" in refused
    assert (registry.refs(), registry.state(adapter)) == (Refs(), state)


@pytest.mark.slow
async def test_a_hold_lets_nothing_be_promoted_but_what_a_person_approves(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    won, held = make_adapter(1), make_adapter(2, last=State.HELD)
    held_since = (await serving.post("/hold", json={"reason": "an incident", "actor": "anna"})).json()
    # A second one is told of the first.
    assert (await serving.post("/hold", json={"reason": "me too", "actor": "ben"})).json() == held_since
    shown = await status(serving)
    assert shown.hold is not None
    assert (shown.hold.actor, shown.hold.reason) == ("anna", "an incident")
    assert (await figures(serving))["ratchet_promotion_hold"] == [({}, 1)]

    refused = message(await serving.post("/promote", json=decision(won, "learner")))
    assert "promotion has been on hold since" in refused
    assert "by anna (an incident); `ratchet approve` lets it serve" in refused
    assert (registry.refs(), registry.state(won)) == (Refs(), State.APPROVED)
    assert (await changed(serving, "/approve", decision(held, "ben"))).to_adapter == held

    assert (await serving.post("/resume", json={"reason": "it is over", "actor": "ben"})).json()["actor"] == "ben"
    assert (await serving.post("/resume", json={"reason": "it is over", "actor": "ben"})).json() is None
    assert (await status(serving)).hold is None
    assert (await figures(serving))["ratchet_promotion_hold"] == [({}, 0)]
    await changed(serving, "/promote", decision(make_adapter(4), "learner"))


async def test_a_hold_is_a_persons_to_overrule(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await serving.post("/hold", json={"reason": "an incident", "actor": "anna"})
    await changed(serving, "/promote", decision(adapter) | {"at_once": True})
    assert registry.refs().champion == adapter


@pytest.mark.slow
async def test_a_rollback_does_not_hold_where_the_settings_say_so(
    registry: Registry, inference_url: str, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    async with serve_role(registry, inference_url, promotion=PromotionSettings(hold_after_rollback=False)) as serving:
        await changed(serving, "/promote", decision(first, "learner"))
        assert not (await changed(serving, "/rollback", COMPLAINT)).on_hold
        await changed(serving, "/promote", decision(second, "learner"))
        assert StatusReport.model_validate((await serving.get("/status")).json()).hold is None


@pytest.mark.slow
async def test_a_rollback_of_a_canary_holds_and_a_person_may_begin_another(
    registry: Registry, inference_url: str, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    async with serve_role(registry, inference_url, canary=CanarySettings(share=0.2)) as serving:
        await changed(serving, "/promote", decision(first, "learner"))
        assert (await changed(serving, "/rollback", COMPLAINT)).on_hold
        refused = message(await serving.post("/restore", json=decision(first)))
        assert "rolled back in a canary and has never been promoted" in refused
        assert "on hold since" in message(await serving.post("/promote", json=decision(second, "learner")))
        assert (await changed(serving, "/approve", decision(second))).share == 0.2
        assert registry.state(second) is State.CANARY


@pytest.mark.parametrize("path", ["/restore", "/hold", "/resume"])
async def test_without_a_reason_or_a_name_nothing_is_undone(path: str, serving: httpx.AsyncClient) -> None:
    body = decision("f" * 64) if path == "/restore" else {"reason": "why", "actor": "anna"}
    for fault in ({"reason": ""}, {"reason": " \n"}, {"actor": ""}, {"force": True}):
        response = await serving.post(path, json=body | fault)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request"), fault
