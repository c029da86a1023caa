"""Taking erased adapters out of the registry. The record role does it, in the course of an erasure."""

from collections.abc import Iterable

from daemon.registry.audit import Action, AuditEntry, AuditEvent
from daemon.registry.lifecycle import State, check
from daemon.registry.refs import after_erasure, states_of
from daemon.registry.registry import REFS_FILE, Registry
from daemon.registry.schemas import BASE, Erasure
from streams.errors import LifecycleError
from streams.runtime.files import write_atomically


def in_use(registry: Registry, adapters: Iterable[str]) -> tuple[str, ...]:
    """Those of `adapters` that answer requests: the champion, and one in a canary."""
    states, champion = states_of(registry.audit.read()), registry.refs().champion
    return tuple(adapter for adapter in adapters if adapter == champion or states.get(adapter) is State.CANARY)


def last_unexposed(registry: Registry, exposed: Iterable[str]) -> str:
    """The adapter to roll back to: the last that served, may serve again and is not `exposed`; else the base model."""
    entries, exposed = registry.audit.read(), set(exposed)
    states = states_of(entries)
    served = (entry.subject for entry in reversed(entries) if entry.action in (Action.PROMOTED, Action.RESTORED))
    return next((one for one in served if one not in exposed and states.get(one) is State.RETIRED), BASE)


def record_erasure(registry: Registry, erasure: Erasure, actor: str, reason: str) -> AuditEntry:
    """Quarantine the adapters of an erasure, take them out of the refs, and record the erasure; once for each.

    Raises `LifecycleError` where one of them answers requests.
    """
    with registry.audit.locked() as log:
        entries = log.read()
        for entry in entries:
            if entry.erasure is not None and entry.erasure.erasure_id == erasure.erasure_id:
                return entry
        refs, states = registry.refs(), states_of(entries)
        moved = []
        for adapter in erasure.adapters:
            state = states.get(adapter)
            if adapter == refs.champion or state is State.CANARY:
                raise LifecycleError(f"adapter {adapter[:12]} answers requests: roll it back first")
            if state not in (None, State.QUARANTINED):
                check(adapter, state, State.QUARANTINED)
                moved.append(
                    AuditEvent(
                        actor=actor, action=Action.MOVED, subject=adapter, reason=reason, state=State.QUARANTINED
                    )
                )
        erased = AuditEvent(
            actor=actor, action=Action.ERASED, subject=erasure.erasure_id, reason=reason, erasure=erasure
        )
        new = after_erasure(refs, [*entries, *moved], erasure.adapters)
        if new != refs:
            # Before the log: killed in between, the erasure goes on at the next start, and comes to the same refs.
            write_atomically(registry.home / REFS_FILE, new.model_dump_json(indent=1).encode() + b"\n")
        return log.append(*moved, erased)[-1]
