"""Files of a home that hold a principal's data or an episode, beside the store."""

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from learners.snapshots import read_episodes, read_principals
from learners.training import JOB
from streams.errors import TrainingError
from streams.trust.groups import FOLDER

_TEXTS = frozenset({".json", ".jsonl", ".ndjson", ".md"})
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"')
# They are named by digests and counts, or are Ratchet's own.
_NOT_SEARCHED = frozenset({"adapters", "snapshots", "training", "base", "logs", "erasures", FOLDER})
_OWN = frozenset({"audit.jsonl", "refs.json", "erasure.json", "erasure-plan.json"})
_PRINCIPALS, _EPISODES = ("principal", "principals"), ("episode_id",)


def snapshots_of(home: Path, principal: str | None, trajectories: Collection[str]) -> list[Path]:
    """The snapshots that hold the principal or one of the trajectories, or of which it cannot be told."""
    found = []
    for folder in sorted((home / "snapshots").glob("*")):
        try:
            seen = bool(read_episodes(folder) & set(trajectories))
            seen = seen or (principal is not None and principal in read_principals(folder))
        except (TrainingError, pa.ArrowException, OSError, ValueError):
            seen = True
        if seen:
            found.append(folder)
    return found


def trainings_on(home: Path, snapshots: Collection[Path]) -> list[Path]:
    """The trainings that have not ended and read one of `snapshots`."""
    names = [path.name.encode() for path in snapshots]
    jobs = sorted((home / "training").glob(f"*/{JOB}"))
    return [job.parent for job in jobs if any(name in job.read_bytes() for name in names)]


def files_with(home: Path, principal: str | None, trajectories: Collection[str]) -> Iterator[Path]:
    """The other files that name one of the trajectories: records of trials, gate reports, exports."""
    ids = {text for each in trajectories for text in (json.dumps(each), json.dumps(each, ensure_ascii=False))}
    wanted = {text[1:-1].encode() for text in ids}
    for path in _searched(home):
        if path.suffix == ".parquet":
            if _table_has(path, principal, trajectories):
                yield path
        elif path.suffix in _TEXTS:
            content = path.read_bytes()
            # A report in Markdown names episodes in backquotes, or bare.
            if wanted & set(_STRING.findall(content)) or (path.suffix == ".md" and any(id in content for id in wanted)):
                yield path


def _searched(home: Path) -> Iterator[Path]:
    yield from sorted((home / "adapters").glob("*/gate.json"))
    yield from sorted((home / "adapters").glob("*/report.md"))
    for place, folders, names in os.walk(home):
        if Path(place) == home:
            folders[:] = [name for name in folders if name not in _NOT_SEARCHED]
        yield from (Path(place, name) for name in sorted(names) if name not in _OWN)


def _table_has(path: Path, principal: str | None, trajectories: Collection[str]) -> bool:
    try:
        names = pq.read_schema(path).names
        columns = [name for name in (*_PRINCIPALS, *_EPISODES) if name in names]
        table = pq.read_table(path, columns=columns).to_pydict()
    except (pa.ArrowException, OSError):
        return False
    if any(value in trajectories for name in _EPISODES for value in table.get(name, ())):
        return True
    told = (value for name in _PRINCIPALS for value in table.get(name, ()) if value is not None)
    return principal is not None and any(principal in ([value] if isinstance(value, str) else value) for value in told)
