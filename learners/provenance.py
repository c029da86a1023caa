"""Whose data an adapter was trained on: in its own snapshot, and in those of the adapters it was trained on from.

`ratchet why` shows it, and a retraction, or an episode that lost trust, asks it which adapters are to be trained again.
What cannot be told any more, because a snapshot or an ancestor is gone or damaged, counts as having seen everything.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from learners.adapters import AdapterManifest, AdapterStore
from learners.snapshots import read_episodes, read_principals
from streams.errors import TrainingError

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ancestor:
    """An adapter as its own files tell it. All fields but `adapter` are None where the files do not tell.

    `principals` has how many trajectories of its snapshot are of each principal, `episodes` the ids of these.
    """

    adapter: str
    manifest: AdapterManifest | None
    principals: Counter[str] | None
    episodes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """That `adapter` saw a principal's data, or an episode, or may have.

    `seen_by` is the adapter whose own snapshot had it: `adapter` itself or its nearest such ancestor. `trajectories`
    is how many it had, None where that cannot be told any more.
    """

    adapter: str
    seen_by: str
    trajectories: int | None

    @property
    def inherited(self) -> bool:
        return self.adapter != self.seen_by


class Provenance:
    """The provenance of the adapters and snapshots of one home folder.

    Reads each file once: make a new one to look again.
    """

    def __init__(self, adapters: AdapterStore, snapshots: Path) -> None:
        self._adapters = adapters
        self._snapshots = snapshots
        self._known: dict[str, Ancestor] = {}

    def lineage(self, adapter: str) -> tuple[Ancestor, ...]:
        """`adapter`, its parent, and so on down to the base model, or to an adapter that is gone or damaged."""
        line: list[Ancestor] = []
        digest: str | None = adapter
        while digest is not None:
            ancestor = self._ancestor(digest)
            line.append(ancestor)
            digest = None if ancestor.manifest is None else ancestor.manifest.parent
        return tuple(line)

    def exposure(self, adapter: str, principal: str) -> Exposure | None:
        """Return how `adapter` came to see the data of `principal`, None if it never did."""
        line = self.lineage(adapter)
        for ancestor in line:
            if ancestor.principals is not None and principal in ancestor.principals:
                return Exposure(adapter, ancestor.adapter, ancestor.principals[principal])
        for ancestor in line:
            if ancestor.principals is None:
                return Exposure(adapter, ancestor.adapter, None)
        return None

    def exposed(self, principal: str, among: Collection[str] | None = None) -> tuple[Exposure, ...]:
        """Of the adapters `among`, by default all, those that saw the data of `principal`, by digest."""
        adapters = self._adapters.digests() if among is None else among
        found = (self.exposure(adapter, principal) for adapter in adapters)
        return tuple(exposure for exposure in found if exposure is not None)

    def exposed_to(self, episodes: Mapping[str, str]) -> Iterator[tuple[str, Exposure]]:
        """The adapters that saw one of `episodes`, which map the ids of trajectories to a name that is given back.

        An adapter is named once for each name. One of which it cannot be told any more is named for the first: it may
        have seen any, and more names would say nothing more.
        """
        for adapter in self._adapters.digests() if episodes else ():
            found: dict[str, Exposure] = {}
            line = self.lineage(adapter)
            for ancestor in line:
                for episode in sorted((ancestor.episodes or frozenset()) & episodes.keys()):
                    found.setdefault(episodes[episode], Exposure(adapter, ancestor.adapter, 1))
            for ancestor in line:
                if ancestor.episodes is None:
                    found.setdefault(next(iter(episodes.values())), Exposure(adapter, ancestor.adapter, None))
                    break
            yield from found.items()

    def _ancestor(self, digest: str) -> Ancestor:
        if digest not in self._known:
            self._known[digest] = self._read(digest)
        return self._known[digest]

    def _read(self, digest: str) -> Ancestor:
        try:
            manifest = self._adapters.manifest(digest)
        except TrainingError as error:
            log.warning("it cannot be told what an adapter was trained on", adapter=digest, reason=str(error))
            return Ancestor(digest, None, None, None)
        snapshot = self._snapshots / manifest.snapshot.snapshot_id
        return Ancestor(
            digest, manifest, _told(read_principals, snapshot, digest), _told(read_episodes, snapshot, digest)
        )


def _told(read: Callable[[Path], T], snapshot: Path, adapter: str) -> T | None:
    """Return what `read` says of the snapshot, or None where it cannot be told."""
    try:
        return read(snapshot)
    except TrainingError as error:
        log.warning("it cannot be told whose data an adapter was trained on", adapter=adapter, reason=str(error))
        return None
