"""Erasing a principal, or an episode, from a lake, while its other writers go on.

DuckLake keeps deleted rows in its files, in earlier snapshots and, by each column's least and greatest value, in the
catalog. So the tables are written again in one transaction, and all earlier snapshots are removed with their files.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from streams.errors import ErasureError, StoreError
from streams.store.ducklake import Lake
from streams.store.positions import SEQUENCE
from streams.store.queries.erasure import IS_ERASED, REWRITTEN
from streams.store.queries.writer import OFFSETS, SET_OFFSET
from streams.store.rewriting import ErasedSubject, Rewriting, StoreErased
from streams.store.settings import StoreSettings

_SUFFIX = "_without_erased"


class LakeErasure:
    """The erasure of one subject from a lake."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    def is_done(self, erasure_id: str) -> bool:
        """Return whether the tables were written again; what they were may still be there."""
        with closing(self._attached()) as lake:
            return bool(lake.rows(IS_ERASED, {"erasure": erasure_id}))

    @contextmanager
    def erasing(self, subject: ErasedSubject) -> Iterator[StoreErased]:
        """Write the tables again and say what they lack; at the end of the block all is committed at once.

        The block is in this writer's turn. Raises `ErasureError` where the tables do not hold exactly what stays, or
        cannot be written, and `StoreError` where the lake cannot be reached.
        """
        with closing(self._attached()) as lake:
            rewriting = Rewriting(
                lake.connection, REWRITTEN, old="lake.", prefix="lake.", suffix=_SUFFIX, erased="lake.erased"
            )
            try:
                with lake.transaction("erase"):
                    yield _erase(lake, rewriting, subject)
            except StoreError as error:
                raise ErasureError(
                    f"{error}. Make room for a second copy of the lake; it is tried again when the record role starts"
                ) from error

    def clean_up(self) -> None:
        """Remove all earlier snapshots, and the files that only they have."""
        with closing(self._attached()) as lake:
            lake.remove_history()

    def _attached(self) -> Lake:
        return Lake.attach(self._settings.lake.for_a_long_turn(), self._settings.memory)


def _erase(lake: Lake, rewriting: Rewriting, subject: ErasedSubject) -> StoreErased:
    stored = {(row["topic"], row["partition"]): row["next"] for row in lake.rows(OFFSETS)}
    rewriting.decide(subject)
    erased = rewriting.write(subject, stored[SEQUENCE])
    for name in REWRITTEN:
        lake.execute(f"DROP TABLE lake.{name}")
        lake.execute(f"ALTER TABLE {rewriting.new(name)} RENAME TO {name}")
    topic, partition = SEQUENCE
    following = stored[SEQUENCE] + len(subject.episodes) + (subject.principal is not None)
    lake.execute(SET_OFFSET, {"topic": topic, "partition": partition, "next": following})
    return erased
