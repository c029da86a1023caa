"""The provenance of an adapter as `ratchet why` shows it: its training data, whose that was, what its gates said."""

from collections import Counter

from pydantic import AwareDatetime

from daemon.registry.audit import AuditEntry
from daemon.registry.holds import told
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Digest, Hold
from evaluation.gates.verdict import GateResult
from evaluation.report import GateReport
from learners.adapters import AdapterStore
from learners.provenance import Ancestor, Provenance
from learners.settings import LearnerSettings
from learners.snapshots import SnapshotManifest
from ratchet_client.settings import FrozenModel
from streams.errors import UnknownAdapterError

_SHORTEST = 6


class WhyReport(FrozenModel):
    """An adapter's provenance. `parents` begin with the nearest; without any it was trained from the base model.

    `principals` has how many of the snapshot's trajectories are of each, `inherited` how many of those of the parents'
    snapshots; None where files are gone that would tell. `retrain` are the retractions, and the withdrawals of
    trust, that it is to be retrained for. `states` are the entries of the audit log that gave it its states, the oldest
    first: who approved or rejected it, and why. `hold` is the one that stands for all candidates.
    """

    adapter: Digest
    state: State | None
    serves: bool
    trained_at: AwareDatetime
    code_version: str
    note: str
    base: str
    base_digest: str
    parents: tuple[Digest, ...]
    snapshot: SnapshotManifest
    settings: LearnerSettings
    seed: int
    principals: dict[str, int] | None
    inherited: dict[str, int] | None
    gates: tuple[GateResult, ...]
    retrain: tuple[str, ...]
    states: tuple[AuditEntry, ...] = ()
    hold: Hold | None = None


def why(name: str, registry: Registry, adapters: AdapterStore, provenance: Provenance) -> WhyReport:
    """The provenance of the adapter that `name` stands for: see `find`.

    Raises `UnknownAdapterError` when it stands for none, `TrainingError` when its files are damaged.
    """
    adapter = find(name, registry, adapters)
    manifest = adapters.manifest(adapter)
    itself, *ancestors = provenance.lineage(adapter)
    report = GateReport.read(registry.adapter_folder(adapter))
    entries = registry.audit.read()
    return WhyReport(
        adapter=adapter,
        state=registry.state(adapter),
        serves=registry.refs().champion == adapter,
        trained_at=manifest.trained_at,
        code_version=manifest.code_version,
        note=manifest.note,
        base=manifest.base,
        base_digest=manifest.base_digest,
        parents=tuple(ancestor.adapter for ancestor in ancestors),
        snapshot=manifest.snapshot,
        settings=manifest.settings,
        seed=manifest.seed,
        principals=_counts([itself]),
        inherited=_counts(ancestors),
        gates=report.gates if report else (),
        retrain=tuple(sorted(registry.marks().get(adapter, ()))),
        states=tuple(entry for entry in entries if entry.subject == adapter and entry.state is not None),
        hold=told(entries),
    )


def find(name: str, registry: Registry, adapters: AdapterStore) -> str:
    """The adapter that is meant by a digest, the beginning of one, a served name, or the word `champion`."""
    if name == "champion":
        name = registry.refs().champion
    if name == BASE:
        raise UnknownAdapterError("the base model is not an adapter: nothing that Ratchet trained is in it")
    beginning = name.rpartition("-")[2]
    if len(beginning) < _SHORTEST:
        raise UnknownAdapterError(f"{name!r} could be anything: give at least {_SHORTEST} characters of the digest")
    found = [digest for digest in adapters.digests() if digest.startswith(beginning)]
    if len(found) != 1:
        what = "no adapter is" if not found else f"{len(found)} adapters are"
        raise UnknownAdapterError(f"{what} called {name!r}: `ratchet history` has the names")
    return found[0]


def _counts(ancestors: list[Ancestor]) -> dict[str, int] | None:
    total: Counter[str] = Counter()
    for ancestor in ancestors:
        if ancestor.principals is None:
            return None
        total += ancestor.principals
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
