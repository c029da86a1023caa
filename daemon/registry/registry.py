"""The registry of adapters: their states, and which one serves. Promotion and the learner go through it.

Everything lives in two files of the home folder. `refs.json` says who serves; its refs change together, in one atomic
write. `audit.jsonl` says all else: an adapter's state is what its last entry says, and a served name carries the number
of the entry that gave it, so that no name can come twice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from daemon.registry import holds
from daemon.registry.approval import (
    check_may_be_approved,
    check_may_be_restored,
    check_not_overtaken,
    check_waits,
    described,
    overdue,
)
from daemon.registry.audit import Action, AuditEntry, AuditEvent, AuditLog, LockedLog
from daemon.registry.instance import instance_of
from daemon.registry.lifecycle import State, check
from daemon.registry.refs import Refs, after_rollback, states_of
from daemon.registry.schemas import BASE, CycleReport, HeldAdapter
from streams.errors import LifecycleError, PromotionError, RegistryError
from streams.runtime.files import write_atomically
from streams.trust.groups import DEFAULT_GROUP

AUDIT_FILE = "audit.jsonl"
REFS_FILE = "refs.json"

# What a champion becomes that another one replaces; retired where nothing else is said.
_LEAVES_AS = {Action.ROLLED_BACK: State.ROLLED_BACK}


@dataclass(frozen=True, slots=True)
class Mark:
    """That `adapter` is to be trained again, because of the retraction, or the withdrawal of trust, of that id."""

    adapter: str
    retraction: str
    reason: str


class Registry:
    """The registry in the folder `home`, which is that of `group`. Several processes may use it at once."""

    def __init__(self, home: Path, group: str = DEFAULT_GROUP) -> None:
        self.home = home
        self.group = group
        self.audit = AuditLog(home / AUDIT_FILE)

    def adapter_folder(self, adapter: str) -> Path:
        """Return the folder of the adapter of that digest."""
        return self.home / "adapters" / adapter

    def refs(self) -> Refs:
        """Raises `RegistryError` when the file is damaged; without a file, the base model is everything."""
        path = self.home / REFS_FILE
        try:
            return Refs.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Refs()
        except ValidationError as error:
            raise RegistryError(f"{path} is damaged: restore it from what {AUDIT_FILE} says ({error})") from error

    def state(self, adapter: str) -> State | None:
        """The state of `adapter`; None for one that was never entered."""
        return states_of(self.audit.read()).get(adapter)

    def enter(self, adapter: str, state: State, actor: str, reason: str, against: str | None = None) -> AuditEntry:
        """Record that `adapter` became `state`. Raises `LifecycleError` when it cannot.

        What serves changes by promotion and rollback only. `against` is the champion that `adapter` was judged against;
        for one that is held, if it is not given, the champion of now.
        """
        if state in (State.SERVING, State.CANARY, State.RETIRED, State.ROLLED_BACK):
            raise RegistryError(f"an adapter becomes {state.value} by promotion or rollback only")
        with self.audit.locked() as log:
            check(adapter, states_of(log.read()).get(adapter), state)
            if state is State.HELD and against is None:
                against = self.refs().champion
            return log.append(_moved(adapter, state, actor, reason, against))[0]

    def name(self, adapter: str, actor: str, reason: str) -> str:
        """A name for `adapter` that no load has ever had: `ratchet-<number of the entry>-<home's id>-<digest12>`."""
        instance = instance_of(self.home)
        event = AuditEvent(actor=actor, action=Action.NAMED, subject=adapter, reason=reason, instance=instance)
        return served_name(self.audit.append(event))

    def names_given_by(self, actor: str) -> frozenset[str]:
        """Every name that `actor` ever asked for in this home, and not in one that this is a copy of."""
        named = [entry for entry in self.audit.read() if entry.action is Action.NAMED and entry.actor == actor]
        ours = instance_of(self.home) if named else None
        return frozenset(served_name(entry) for entry in named if entry.instance == ours)

    def check_may_serve(self, adapter: str, *, automatic: bool = False) -> None:
        """Raises `LifecycleError` unless `adapter` is approved or has served.

        Raises `PromotionError` if it serves now, was judged against another adapter than what serves now, or if the
        promotion is `automatic` and promotion is on hold.
        """
        champion, entries = self.refs().champion, self.audit.read()
        if adapter == champion:
            raise PromotionError(f"{adapter[:12]} already serves")
        if automatic:
            holds.check_none(entries, adapter, self.group)
        if adapter != BASE:
            check(adapter, states_of(entries).get(adapter), State.SERVING)
            check_not_overtaken(entries, adapter, champion)

    def promote(self, adapter: str, actor: str, reason: str, *, automatic: bool = False) -> Refs:
        """Make `adapter` the champion, and the champion the previous one. Durable, or nothing changed.

        Raises `PromotionError` as `check_may_serve` does.
        """
        with self.audit.locked() as log:
            entries = log.read()
            if automatic:
                holds.check_none(entries, adapter, self.group)
            check_not_overtaken(entries, adapter, self.refs().champion)
            return self._promote(log, adapter, actor, reason)

    def held(self, age_s: float) -> tuple[HeldAdapter, ...]:
        """The candidates that wait for a person, who has `age_s` seconds to decide."""
        return described(self.audit.read(), self.refs().champion, age_s)

    def check_may_be_approved(self, adapter: str) -> None:
        """Raises as `accept` does."""
        check_may_be_approved(self.audit.read(), adapter, self.refs().champion, self.group)

    def approve(self, adapter: str, actor: str, reason: str) -> Refs:
        """Promote `adapter`, which waits for that, because the person `actor` says so. Durable, or what serves stays.

        Raises as `accept` does.
        """
        with self.audit.locked() as log:
            self._accept(log, adapter, actor, reason)
            return self._promote(log, adapter, actor, reason)

    def accept(self, adapter: str, actor: str, reason: str) -> None:
        """Record that the person `actor` approves `adapter`, which waits for that; it does not serve yet.

        Raises `LifecycleError` when it does not wait, `PromotionError` when it may not take the champion's place.
        """
        with self.audit.locked() as log:
            self._accept(log, adapter, actor, reason)

    def reject(self, adapter: str, actor: str, reason: str) -> AuditEntry:
        """End the held `adapter`, because the person `actor` says so. Raises `LifecycleError` when it is not held."""
        with self.audit.locked() as log:
            check_waits(log.read(), adapter, self.group, State.HELD)
            return log.append(_moved(adapter, State.REJECTED, actor, reason))[0]

    def lapse(self, age_s: float, actor: str, now: datetime | None = None) -> list[AuditEntry]:
        """End the held candidates that nobody decided about within `age_s` seconds; the entries that say so."""
        now = now or datetime.now(UTC)
        if not overdue(self.audit.read(), age_s, now):
            return []
        with self.audit.locked() as log:
            return log.append(
                *(
                    _moved(
                        entry.subject,
                        State.INCONCLUSIVE,
                        actor,
                        f"It lapsed: it was neither approved nor rejected within {age_s:g} s "
                        f"(promotion.approval_age_s). It was held because: {entry.reason}",
                    )
                    for entry in overdue(log.read(), age_s, now)
                )
            )

    def set_anchor(self, adapter: str, actor: str, reason: str) -> Refs:
        """Make `adapter` the anchor. Durable, or nothing changed.

        Raises `LifecycleError` for one that has not served: what no gate has let through is nothing to be held to.
        """
        with self.audit.locked() as log:
            state = states_of(log.read()).get(adapter)
            if adapter != BASE and state not in (State.SERVING, State.RETIRED):
                raise LifecycleError(
                    f"adapter {adapter[:12]} is {state.value if state else 'not known'} and cannot be the anchor: name "
                    "one that serves, or that served and was not taken back"
                )
            return self._anchor(log, adapter, actor, reason)

    def anchor_first_champion(self, actor: str) -> Refs:
        """Make the champion the anchor where there is none yet: none was set, or the one there was is taken back."""
        with self.audit.locked() as log:
            refs = self.refs()
            set_before = [entry.subject for entry in log.read() if entry.action is Action.ANCHORED]
            if refs.champion == BASE or refs.anchor != BASE or set_before[-1:] == [BASE]:
                return refs
            return self._anchor(log, refs.champion, actor, "the first champion that a candidate is to replace")

    def _anchor(self, log: LockedLog, adapter: str, actor: str, reason: str) -> Refs:
        old = self.refs()
        new = old.model_copy(update={"anchor": adapter})
        self._write(new)
        try:
            log.append(AuditEvent(actor=actor, action=Action.ANCHORED, subject=adapter, reason=reason))
        except OSError:
            self._write(old)
            raise
        return new

    def roll_back(self, to: str, actor: str, reason: str, *, hold: bool = False) -> Refs:
        """Make `to` the champion again, and what served before `to` the previous one. Durable, or nothing changed.

        With `hold` automatic promotion stops, which is on disk before the champion changes.
        """
        with self.audit.locked() as log:
            old, entries = self.refs(), log.read()
            new = after_rollback(old, entries, to)
            self._check_exchange(entries, old, new, Action.ROLLED_BACK)
            if hold:
                holds.begin_in(log, old.champion, actor, f"{old.champion[:12]} was rolled back: {reason}")
            self._exchange(log, old, new, Action.ROLLED_BACK, actor, reason)
            return new

    def restore(self, adapter: str, actor: str, reason: str) -> Refs:
        """Make `adapter`, which was rolled back, the champion again, because the person `actor` says so.

        Durable, or nothing changed. Raises as `check_may_be_restored` does.
        """
        with self.audit.locked() as log:
            check_may_be_restored(log.read(), adapter, self.group)
            old = self.refs()
            new = old.model_copy(update={"champion": adapter, "previous": old.champion})
            self._exchange(log, old, new, Action.RESTORED, actor, reason)
            return new

    def check_may_be_restored(self, adapter: str) -> None:
        """Raises `LifecycleError` or `PromotionError`, with the reason, unless `adapter` was only rolled back."""
        check_may_be_restored(self.audit.read(), adapter, self.group)

    def reconcile(self, actor: str) -> None:
        """Complete an exchange that a crash interrupted between the refs and the audit log: the refs are right."""
        with self.audit.locked() as log:
            champion = self.refs().champion
            states = states_of(log.read())
            amends = {other: State.RETIRED for other, state in states.items() if state is State.SERVING}
            amends.pop(champion, None)
            if champion != BASE and states.get(champion) is not State.SERVING:
                amends[champion] = State.SERVING
            reason = "a crash came between the refs and the audit log"
            log.append(
                *(
                    AuditEvent(actor=actor, action=Action.RECONCILED, subject=adapter, reason=reason, state=state)
                    for adapter, state in amends.items()
                )
            )

    def record_failure(self, adapter: str, actor: str, reason: str) -> None:
        """Record that `adapter` was to serve and could not; its state stays what it was."""
        self.audit.append(AuditEvent(actor=actor, action=Action.PROMOTION_FAILED, subject=adapter, reason=reason))

    def record_cycle(self, report: CycleReport, actor: str) -> AuditEntry:
        """Record a finished cycle."""
        return self.audit.append(
            AuditEvent(actor=actor, action=Action.CYCLE, subject=report.adapter, reason=report.reason, cycle=report)
        )

    def mark_for_retraining(self, marks: Iterable[Mark], actor: str) -> list[AuditEntry]:
        """Record the marks that are new; an adapter is marked once for a retraction. What serves keeps serving."""
        with self.audit.locked() as log:
            known = {(entry.subject, entry.retraction) for entry in log.read()}
            return log.append(
                *(
                    AuditEvent(
                        actor=actor,
                        action=Action.RETRAIN,
                        subject=mark.adapter,
                        reason=mark.reason,
                        retraction=mark.retraction,
                    )
                    for mark in marks
                    if (mark.adapter, mark.retraction) not in known
                )
            )

    def marks(self) -> Mapping[str, frozenset[str]]:
        """The adapters that are marked for retraining, each with the ids of the retractions."""
        found: dict[str, set[str]] = defaultdict(set)
        for entry in self.audit.read():
            if entry.retraction is not None:
                found[entry.subject].add(entry.retraction)
        return {adapter: frozenset(retractions) for adapter, retractions in found.items()}

    def _accept(self, log: LockedLog, adapter: str, actor: str, reason: str) -> None:
        entry = check_may_be_approved(log.read(), adapter, self.refs().champion, self.group)
        if entry.state is State.HELD:
            # Before the refs: a crash between the two must not lose who approved, and why.
            log.append(_moved(adapter, State.APPROVED, actor, reason, entry.against))

    def _promote(self, log: LockedLog, adapter: str, actor: str, reason: str) -> Refs:
        old = self.refs()
        new = old.model_copy(update={"champion": adapter, "previous": old.champion})
        self._exchange(log, old, new, Action.PROMOTED, actor, reason)
        return new

    def _check_exchange(self, entries: list[AuditEntry], old: Refs, new: Refs, action: Action) -> None:
        states = states_of(entries)
        if new.champion != BASE and action is not Action.RESTORED:
            check(new.champion, states.get(new.champion), State.SERVING)
        if old.champion != BASE:
            check(old.champion, states.get(old.champion), _LEAVES_AS.get(action, State.RETIRED))

    def _exchange(self, log: LockedLog, old: Refs, new: Refs, action: Action, actor: str, reason: str) -> None:
        self._check_exchange(log.read(), old, new, action)
        audit_events = [
            AuditEvent(
                actor=actor,
                action=action,
                subject=new.champion,
                reason=reason,
                state=None if new.champion == BASE else State.SERVING,
                replaced=old.champion,
            )
        ]
        if old.champion != BASE:
            audit_events.append(_moved(old.champion, _LEAVES_AS.get(action, State.RETIRED), actor, reason))
        self._write(new)
        try:
            log.append(*audit_events)
        except OSError:
            self._write(old)
            raise

    def _write(self, refs: Refs) -> None:
        write_atomically(self.home / REFS_FILE, refs.model_dump_json(indent=1).encode() + b"\n")


def _moved(adapter: str, state: State, actor: str, reason: str, against: str | None = None) -> AuditEvent:
    return AuditEvent(actor=actor, action=Action.MOVED, subject=adapter, reason=reason, state=state, against=against)


def served_name(entry: AuditEntry) -> str:
    """The name that an entry gave to its adapter; those of older versions have no id of a home."""
    return "-".join(filter(None, ("ratchet", str(entry.sequence), entry.instance, entry.subject[:12])))
