"""Canaries begin and end with the real inference server: loaded, attested, unloaded, over restarts and by hand."""

from collections.abc import Callable

import pytest

from daemon.registry.audit import Action
from daemon.registry.canaries import last_canary, running_canary
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CanaryEnd
from daemon.serving.alias import Alias
from daemon.serving.canary import FOLDER, Canary, CanaryPhase
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from evaluation.settings import CanarySettings
from streams.errors import PromotionError, TrainingError
from streams.policy.client import PolicyClient

MakeAdapter = Callable[..., str]
SETTINGS = CanarySettings(share=0.2)


class Process:
    """The parts of one serve process; another one with the same registry is it after a restart."""

    def __init__(self, registry: Registry, policy: PolicyClient, settings: CanarySettings = SETTINGS) -> None:
        self.alias = Alias("assistant")
        self.canary = Canary(settings, registry.home)
        drain = PromotionSettings(drain_timeout_s=5)
        self.promoter = Promoter(Registry(registry.home), Replicas([policy]), self.alias, drain, self.canary)


@pytest.fixture
async def process(registry: Registry, policy: PolicyClient) -> Process:
    process = Process(registry, policy)
    await process.promoter.reconcile()
    return process


async def loaded(policy: PolicyClient) -> set[str]:
    return {model.name for model in await policy.models()}


async def own(registry: Registry, policy: PolicyClient) -> set[str]:
    """What the server has loaded of this registry; it outlives a test."""
    return await loaded(policy) & registry.names_given_by("serve")


async def test_a_promotion_begins_a_canary_and_a_proof_ends_it_without_another_load(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    change = await process.promoter.promote(adapter, "learner", "it passed its gates")
    assert (change.from_adapter, change.to_adapter, change.share) == (BASE, adapter, 0.2)
    assert (process.alias.served, process.canary.served) == (BASE, change.to_name)
    assert change.to_name in await loaded(policy)
    assert (registry.refs(), registry.state(adapter)) == (Refs(), State.CANARY)

    await process.promoter.end_canary(CanaryEnd.PROMOTED, adapter, "it is better")
    assert (process.alias.served, process.canary.phase) == (change.to_name, CanaryPhase.OFF)
    assert (registry.refs().champion, registry.state(adapter)) == (adapter, State.SERVING)
    report = last_canary(registry)
    assert report is not None
    assert (report.ended, report.reason) == (CanaryEnd.PROMOTED, "it is better")
    names = [entry for entry in registry.audit.read() if entry.action is Action.NAMED]
    assert len(names) == 1


async def test_a_rollback_by_itself_unloads_the_candidate_and_the_next_candidate_may_begin(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    await process.promoter.end_canary(CanaryEnd.ROLLED_BACK, adapter, "it is worse")
    assert served not in await loaded(policy)
    assert (process.alias.served, registry.state(adapter)) == (BASE, State.ROLLED_BACK)
    await process.promoter.end_canary(CanaryEnd.PROMOTED, adapter, "too late")
    assert registry.refs() == Refs()
    assert (await process.promoter.promote(make_adapter(2), "learner", "better")).share == 0.2


async def test_a_candidate_that_is_not_what_was_trained_gets_no_canary(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    before = await loaded(policy)
    wrong = make_adapter(3, scale=0.0)
    with pytest.raises(PromotionError, match="did not begin"):
        await process.promoter.promote(wrong, "learner", "better")
    assert (await loaded(policy), process.canary.phase) == (before, CanaryPhase.OFF)
    assert registry.state(wrong) is State.APPROVED
    assert registry.audit.read()[-1].action is Action.PROMOTION_FAILED


async def test_during_a_canary_only_at_once_promotes(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter, other = make_adapter(1), make_adapter(2)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    for again in (adapter, other):  # a repeated request must not end the canary
        with pytest.raises(PromotionError, match="runs: wait for its end, or promote with at_once"):
            await process.promoter.promote(again, "learner", "better")
    assert registry.refs() == Refs()
    change = await process.promoter.promote(adapter, "anna", "we cannot wait", at_once=True)
    assert (change.to_name, process.alias.served, change.share) == (served, served, 1.0)
    report = last_canary(registry)
    assert report is not None
    assert (report.ended, registry.refs().champion) == (CanaryEnd.PROMOTED, adapter)


async def test_promoting_another_at_once_ends_the_canary_and_says_nothing_of_its_candidate(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter, other = make_adapter(1), make_adapter(2)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    await process.promoter.promote(other, "anna", "urgent", at_once=True)
    assert (registry.refs().champion, registry.state(adapter)) == (other, State.APPROVED)
    assert served not in await loaded(policy)
    report = last_canary(registry)
    assert report is not None
    assert report.ended is CanaryEnd.CANCELLED


async def test_a_rollback_by_hand_takes_the_candidate_back_first_and_the_champion_next(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    champion, adapter = make_adapter(1), make_adapter(2)
    await process.promoter.promote(champion, "anna", "better", at_once=True)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    back = await process.promoter.roll_back(None, "anna", "complaints")
    assert (back.from_adapter, back.to_adapter, back.from_name) == (adapter, champion, served)
    assert (registry.state(adapter), registry.refs().champion) == (State.ROLLED_BACK, champion)
    assert served not in await loaded(policy)
    further = await process.promoter.roll_back(None, "anna", "more complaints")
    assert (further.from_adapter, further.to_adapter) == (champion, BASE)


async def test_a_rollback_by_hand_to_an_older_adapter_ends_the_canary_too(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    champion, adapter = make_adapter(1), make_adapter(2)
    await process.promoter.promote(champion, "anna", "better", at_once=True)
    await process.promoter.promote(adapter, "learner", "better")
    await process.promoter.roll_back(BASE, "anna", "everything is bad")
    assert (registry.refs().champion, process.alias.served) == (BASE, BASE)
    assert (registry.state(champion), registry.state(adapter)) == (State.ROLLED_BACK, State.APPROVED)
    assert running_canary(registry) is None
    assert await own(registry, policy) == set()


async def test_a_restarted_process_takes_the_canary_up_under_another_name(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    restarted = Process(registry, policy)
    await restarted.promoter.reconcile()
    assert (restarted.alias.served, restarted.canary.phase) == (BASE, CanaryPhase.ANSWERING)
    assert restarted.canary.served not in (None, served)
    assert await own(registry, policy) == {restarted.canary.served}
    assert (registry.home / FOLDER).is_dir()
    await restarted.promoter.reconcile()
    assert len([entry for entry in registry.audit.read() if entry.action is Action.NAMED]) == 2


async def test_a_server_that_lost_the_candidate_gets_it_again(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    served = (await process.promoter.promote(make_adapter(1), "learner", "better")).to_name
    await policy.unload_adapter(served)
    await process.promoter.reconcile()
    assert process.canary.served not in (None, served)
    assert process.canary.served in await loaded(policy)


async def test_a_candidate_that_cannot_be_loaded_again_is_taken_back(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    served = (await process.promoter.promote(adapter, "learner", "better")).to_name
    await policy.unload_adapter(served)
    (registry.adapter_folder(adapter) / "adapter_model.safetensors").write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(TrainingError, match="damaged"):
            await process.promoter.reconcile()
        assert (process.canary.phase, process.alias.served) == (CanaryPhase.LOADING, BASE)
    await process.promoter.reconcile()
    assert (process.canary.phase, registry.state(adapter)) == (CanaryPhase.OFF, State.ROLLED_BACK)


async def test_canaries_that_are_switched_off_end_and_leave_the_candidate_approved(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await process.promoter.promote(adapter, "learner", "better")
    off = Process(registry, policy, CanarySettings())
    await off.promoter.reconcile()
    assert (registry.state(adapter), running_canary(registry)) == (State.APPROVED, None)
    assert await own(registry, policy) == set()
    assert (await off.promoter.promote(adapter, "anna", "better")).share == 1.0


async def test_killed_right_after_the_promotion_the_report_is_completed(
    process: Process, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    await process.promoter.promote(adapter, "learner", "better")
    registry.promote(adapter, "serve", "it is better")  # and then the process is killed
    restarted = Process(registry, policy)
    await restarted.promoter.reconcile()
    assert (restarted.alias.adapter, restarted.canary.phase) == (adapter, CanaryPhase.OFF)
    report = last_canary(registry)
    assert report is not None
    assert (report.ended, running_canary(registry)) == (CanaryEnd.PROMOTED, None)
    assert await own(registry, policy) == {restarted.alias.served}


async def test_killed_before_the_canary_was_recorded_nothing_has_begun(
    process: Process,
    registry: Registry,
    policy: PolicyClient,
    make_adapter: MakeAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = make_adapter(1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("daemon.serving.promotion.start_canary", killed)
    with pytest.raises(KeyboardInterrupt):
        await process.promoter.promote(adapter, "learner", "better")
    monkeypatch.undo()
    restarted = Process(registry, policy)
    await restarted.promoter.reconcile()
    assert (restarted.canary.phase, registry.state(adapter)) == (CanaryPhase.OFF, State.APPROVED)
    assert await own(registry, policy) == set()
