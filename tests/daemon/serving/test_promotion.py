import asyncio
from collections.abc import Callable

import pytest

from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.alias import Alias
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from streams.errors import PromotionError
from streams.policy.client import PolicyClient
from tests.waiting import eventually

MakeAdapter = Callable[..., str]


@pytest.fixture
def alias() -> Alias:
    return Alias("assistant")


@pytest.fixture
async def promoter(registry: Registry, policy: PolicyClient, alias: Alias) -> Promoter:
    promoter = Promoter(registry, Replicas([policy]), alias, PromotionSettings(drain_timeout_s=5))
    await promoter.reconcile()
    return promoter


async def loaded(policy: PolicyClient) -> set[str]:
    return {model.name for model in await policy.models()}


async def test_with_nothing_promoted_the_base_model_serves(promoter: Promoter, alias: Alias) -> None:
    assert (alias.adapter, alias.served) == (BASE, BASE)


async def test_a_promoted_adapter_serves_under_a_fresh_name_and_the_old_one_is_unloaded(
    promoter: Promoter, registry: Registry, policy: PolicyClient, alias: Alias, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    one = await promoter.promote(first, "anna", "p = 0.01")
    two = await promoter.promote(second, "anna", "p = 0.02")
    assert (one.from_adapter, one.to_adapter, one.from_name) == (BASE, first, BASE)
    assert (two.from_name, two.to_name) == (one.to_name, alias.served)
    assert two.to_name.endswith(second[:12])
    assert two.to_name in await loaded(policy)
    assert one.to_name not in await loaded(policy)
    assert registry.refs() == Refs(champion=second, previous=first)
    assert (registry.state(first), registry.state(second)) == (State.RETIRED, State.SERVING)


async def test_a_rollback_brings_the_previous_adapter_back_and_then_the_base(
    promoter: Promoter, registry: Registry, policy: PolicyClient, alias: Alias, make_adapter: MakeAdapter
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    one = await promoter.promote(first, "anna", "better")
    await promoter.promote(second, "anna", "better")
    back = await promoter.roll_back(None, "anna", "complaints")
    assert (back.from_adapter, back.to_adapter) == (second, first)
    assert back.to_name == alias.served != one.to_name
    assert back.from_name not in await loaded(policy)
    further = await promoter.roll_back(None, "anna", "more complaints")
    assert (further.to_adapter, further.to_name, alias.served) == (BASE, BASE, BASE)
    with pytest.raises(PromotionError, match="base already serves"):
        await promoter.roll_back(None, "anna", "still complaints")


@pytest.mark.parametrize(("scale", "trained_scale"), [(0.0, 0.3), (0.3, 0.0), (0.3, 0.6), (0.0, 0.0)])
async def test_an_adapter_whose_outputs_differ_from_its_trainers_record_is_refused(
    scale: float,
    trained_scale: float,
    promoter: Promoter,
    registry: Registry,
    policy: PolicyClient,
    alias: Alias,
    make_adapter: MakeAdapter,
) -> None:
    before = await loaded(policy)
    wrong = make_adapter(3, scale=scale, trained_scale=trained_scale)
    with pytest.raises(PromotionError, match=r"base still serves: .*(no-op|not the adapter)"):
        await promoter.promote(wrong, "anna", "p = 0.01")
    assert alias.served == BASE
    assert await loaded(policy) == before
    assert registry.refs() == Refs()
    assert registry.state(wrong) is State.APPROVED
    assert registry.audit.read()[-1].action is Action.PROMOTION_FAILED


async def test_an_adapter_that_cannot_be_loaded_leaves_the_champion_serving(
    promoter: Promoter, registry: Registry, alias: Alias, make_adapter: MakeAdapter
) -> None:
    good, broken = make_adapter(1), make_adapter(2)
    await promoter.promote(good, "anna", "better")
    served = alias.served
    (registry.adapter_folder(broken) / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(PromotionError, match=f"{served} still serves"):
        await promoter.promote(broken, "anna", "better")
    assert alias.served == served
    assert registry.refs().champion == good
    failure = registry.audit.read()[-1]
    assert (failure.action, failure.subject, failure.actor) == (Action.PROMOTION_FAILED, broken, "anna")


async def test_an_adapter_without_its_trainers_record_cannot_serve(
    promoter: Promoter, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    (registry.adapter_folder(adapter) / "probes.json").unlink()
    with pytest.raises(PromotionError, match="cannot be attested"):
        await promoter.promote(adapter, "anna", "better")


async def test_an_adapter_that_no_gate_approved_is_not_even_loaded(
    promoter: Promoter, registry: Registry, alias: Alias, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, approved=False)
    with pytest.raises(PromotionError, match="is not known and cannot become serving"):
        await promoter.promote(adapter, "anna", "I like it")
    assert alias.served == BASE
    assert Action.NAMED not in {entry.action for entry in registry.audit.read()}


@pytest.mark.slow
async def test_promotions_requested_together_happen_one_after_the_other(
    promoter: Promoter, registry: Registry, alias: Alias, make_adapter: MakeAdapter
) -> None:
    adapters = [make_adapter(seed) for seed in (1, 2, 3)]
    changes = await asyncio.gather(*(promoter.promote(adapter, "anna", "better") for adapter in adapters))
    assert [change.from_name for change in changes[1:]] == [change.to_name for change in changes[:-1]]
    assert registry.refs() == Refs(champion=adapters[2], previous=adapters[1])
    assert registry.audit.verify() == len(registry.audit.read())


async def test_a_server_that_lost_the_champion_gets_it_again_under_a_new_name(
    promoter: Promoter, policy: PolicyClient, alias: Alias, make_adapter: MakeAdapter
) -> None:
    lost = (await promoter.promote(make_adapter(1), "anna", "better")).to_name
    await policy.unload_adapter(lost)
    await promoter.reconcile()
    assert alias.served is not None
    assert alias.served != lost
    assert alias.served in await loaded(policy)


async def test_a_restarted_process_serves_the_champion_and_unloads_leftover_adapters(
    promoter: Promoter, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    left = (await promoter.promote(make_adapter(1), "anna", "better")).to_name
    alias = Alias("assistant")
    await Promoter(Registry(registry.home), Replicas([policy]), alias, PromotionSettings()).reconcile()
    assert alias.adapter == registry.refs().champion
    assert alias.served in await loaded(policy)
    assert left not in await loaded(policy)


async def test_a_candidate_under_evaluation_stays_loaded(
    promoter: Promoter, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1, approved=False)
    candidate = registry.name(adapter, "learner", "to be gated")
    await policy.load_adapter(candidate, str(registry.adapter_folder(adapter)))
    await Promoter(registry, Replicas([policy]), Alias("assistant"), PromotionSettings()).reconcile()
    assert candidate in await loaded(policy)
    await policy.unload_adapter(candidate)


async def test_a_champion_that_cannot_serve_is_an_error_and_an_operator_can_roll_back(
    promoter: Promoter, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await promoter.promote(adapter, "anna", "better")
    (registry.adapter_folder(adapter) / "probes.json").unlink()
    alias = Alias("assistant")
    restarted = Promoter(registry, Replicas([policy]), alias, PromotionSettings())
    with pytest.raises(PromotionError, match="cannot be attested"):
        await restarted.reconcile()
    assert alias.served is None
    await restarted.roll_back(BASE, "anna", "its folder is damaged")
    assert alias.served == BASE


async def test_an_old_adapter_stays_loaded_until_its_last_request_is_answered(
    promoter: Promoter, policy: PolicyClient, alias: Alias, make_adapter: MakeAdapter
) -> None:
    old = (await promoter.promote(make_adapter(1), "anna", "better")).to_name
    alias.begin(old)
    promotion = asyncio.create_task(promoter.promote(make_adapter(2), "anna", "better"))
    await eventually(lambda: alias.served != old)
    assert old in await loaded(policy)
    assert not promotion.done()
    alias.end(old)
    await promotion
    assert old not in await loaded(policy)
