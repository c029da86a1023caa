"""The consequences of a retraction, and of an episode that lost trust: which adapters must be trained again.

`ratchet forget` calls it, and the learner for retractions that came from elsewhere. What serves keeps serving until
a replacement passes the gate; the next cycle trains on from nothing that saw such data.
"""

from collections.abc import Iterable
from pathlib import Path

from daemon.registry.audit import AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.registry import Mark, Registry
from daemon.registry.schemas import BASE, Adapter, Digest
from learners.adapters import AdapterStore
from learners.provenance import Exposure, Provenance
from ratchet_client.events import RetractionEvent
from ratchet_client.settings import FrozenModel
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.queries.retractions import EPISODES_OF_PRINCIPAL, REVOKED_PRINCIPALS
from streams.store.queries.trust import WITHDRAWN_TRAJECTORIES
from streams.store.retraction import retract


class ExposedAdapter(FrozenModel):
    """An adapter that saw a principal's data: in the snapshot of `seen_by`, which is itself or an ancestor.

    `trajectories` is how many that snapshot has, None where it cannot be told any more and the worst is assumed.
    """

    adapter: Digest
    state: State | None
    serves: bool
    seen_by: Digest
    trajectories: int | None


class ForgetReport(FrozenModel):
    """The result of `ratchet forget`. `episodes` are the principal's in the store, which no later snapshot takes.

    `next_parent` is what the next cycle trains on from.
    """

    principal: str
    retraction: str
    sequence: int
    episodes: int
    adapters: tuple[ExposedAdapter, ...]
    champion: Adapter
    champion_saw: bool
    next_parent: Adapter


async def forget(
    event: RetractionEvent,
    actor: str,
    kafka: KafkaSettings,
    key: bytes | None,
    store: StoreClient,
    registry: Registry,
    provenance: Provenance,
    others: Iterable[Path] = (),
) -> ForgetReport:
    """Publish the retraction, wait until the store has it, and mark the adapters that saw the principal.

    So are those in the homes `others`, of other groups, and they are reported too. Raises what
    `streams.store.retraction.retract` does.
    """
    retraction = await retract(kafka, store, event, key)
    await mark_exposed(store, registry, provenance, actor)
    adapters = exposed_adapters(registry, provenance, event.principal)
    champion_saw = any(one.serves for one in adapters)
    for home in others:
        seen, known = Registry(home), Provenance(AdapterStore(home / "adapters"), home / "snapshots")
        await mark_exposed(store, seen, known, actor)
        adapters += exposed_adapters(seen, known, event.principal)
    counted = await store.query(EPISODES_OF_PRINCIPAL, {"principal": event.principal})
    champion = registry.refs().champion
    return ForgetReport(
        principal=event.principal,
        retraction=retraction.event_id,
        sequence=retraction.sequence,
        episodes=counted["count"][0].as_py(),
        adapters=adapters,
        champion=champion,
        champion_saw=champion_saw,
        next_parent=unmarked_ancestor(registry, provenance, champion),
    )


async def mark_exposed(
    store: StoreClient, registry: Registry, provenance: Provenance, actor: str
) -> tuple[AuditEntry, ...]:
    """Mark every adapter that saw a principal of any retraction in the store, or an episode that lost trust.

    Returns the marks that are new.
    """
    revoked = await store.query(REVOKED_PRINCIPALS)
    marks = [
        Mark(exposure.adapter, row["event_id"], _reason(exposure, row["event_id"]))
        for row in revoked.to_pylist()
        for exposure in provenance.exposed(row["principal"])
    ]
    withdrawn = await store.query(WITHDRAWN_TRAJECTORIES)
    episodes = {row["trajectory"]: row["withdrawal_id"] for row in withdrawn.to_pylist()}
    for withdrawal, exposure in provenance.exposed_to(episodes):
        reason = f"{_saw(exposure)} an episode that has lost trust, by {withdrawal}"
        marks.append(Mark(exposure.adapter, withdrawal, reason))
    return tuple(registry.mark_for_retraining(marks, actor)) if marks else ()


def exposed_adapters(registry: Registry, provenance: Provenance, principal: str) -> tuple[ExposedAdapter, ...]:
    """The adapters that saw `principal`'s data, or may have."""
    champion = registry.refs().champion
    return tuple(
        ExposedAdapter(
            adapter=exposure.adapter,
            state=registry.state(exposure.adapter),
            serves=exposure.adapter == champion,
            seen_by=exposure.seen_by,
            trajectories=exposure.trajectories,
        )
        for exposure in provenance.exposed(principal)
    )


def unmarked_ancestor(registry: Registry, provenance: Provenance, adapter: str) -> str:
    """`adapter`, or else its nearest ancestor that is not marked for retraining; `base` where there is none."""
    marks = registry.marks()
    if adapter == BASE or adapter not in marks:
        return adapter
    line = (ancestor.adapter for ancestor in provenance.lineage(adapter))
    return next((ancestor for ancestor in line if ancestor not in marks), BASE)


def _reason(exposure: Exposure, event_id: str) -> str:
    return f"{_saw(exposure)} data of a principal that revoked consent by the retraction {event_id}"


def _saw(exposure: Exposure) -> str:
    if exposure.trajectories is None:
        return f"it cannot be told any more what {exposure.seen_by[:12]} saw, so it may have seen"
    return f"its ancestor {exposure.seen_by[:12]} saw" if exposure.inherited else "it saw"
