"""Who serves, and who did before: the refs of the registry, and what the audit log says that they are.

The registry writes them; `ratchet verify` compares both.
"""

from collections.abc import Collection, Iterable, Sequence

from daemon.registry.audit import Action, AuditEntry, AuditEvent
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, Adapter
from ratchet_client.settings import FrozenModel


class Refs(FrozenModel):
    """The champion serves, a rollback returns to the previous; the anchor is a fixed older reference.

    Gates hold each candidate against the anchor, so that no series of small losses goes unnoticed. It is the first
    champion that a candidate was to replace, until an operator sets another.
    """

    champion: Adapter = BASE
    previous: Adapter = BASE
    anchor: Adapter = BASE


def states_of(entries: Iterable[AuditEvent]) -> dict[str, State]:
    """The state of each adapter after the entries."""
    return {entry.subject: entry.state for entry in entries if entry.state is not None}


def predecessor(entries: Sequence[AuditEvent], adapter: str) -> str:
    """The adapter that served before `adapter` last came to serve and may serve again; `base` where nothing may."""
    states = states_of(entries)
    met = False
    for entry in reversed(entries):
        if entry.action not in (Action.PROMOTED, Action.RESTORED):
            continue
        met = met or entry.subject == adapter
        before = entry.replaced or BASE
        if met and (before == BASE or (before != adapter and states[before] is State.RETIRED)):
            return before
    return BASE


def after_rollback(refs: Refs, entries: Sequence[AuditEntry], to: str) -> Refs:
    """The refs once `to` serves again in place of the champion; `entries` are those of before."""
    # What was taken back is no measure any more.
    anchor = BASE if refs.anchor == refs.champion and refs.anchor != to else refs.anchor
    return Refs(champion=to, previous=predecessor(entries, to), anchor=anchor)


def after_erasure(refs: Refs, entries: Sequence[AuditEvent], erased: Collection[str]) -> Refs:
    """The refs once the adapters `erased` are gone; `entries` say that these are quarantined. The champion stays."""
    anchor = BASE if refs.anchor in erased else refs.anchor
    previous = predecessor(entries, refs.champion) if refs.previous in erased else refs.previous
    return Refs(champion=refs.champion, previous=previous, anchor=anchor)


def refs_told(entries: Sequence[AuditEntry]) -> tuple[Refs, bool]:
    """The refs that follow from the audit log, and whether it tells the previous one.

    It does not after a crash between the refs and the log, until the champion changes again.
    """
    refs, tells_previous = Refs(), True
    for place, entry in enumerate(entries):
        if entry.action in (Action.PROMOTED, Action.RESTORED):
            refs, tells_previous = refs.model_copy(update={"champion": entry.subject, "previous": refs.champion}), True
        elif entry.action is Action.ROLLED_BACK:
            refs, tells_previous = after_rollback(refs, entries[:place], entry.subject), True
        elif entry.action is Action.RECONCILED and entry.state is State.SERVING:
            refs, tells_previous = refs.model_copy(update={"champion": entry.subject}), False
        elif entry.action is Action.RECONCILED and entry.subject == refs.champion:
            refs, tells_previous = refs.model_copy(update={"champion": BASE}), False
        elif entry.action is Action.ERASED and entry.erasure is not None:
            refs = after_erasure(refs, entries[:place], entry.erasure.adapters)
        elif entry.action is Action.ANCHORED:
            refs = refs.model_copy(update={"anchor": entry.subject})
    return refs, tells_previous
