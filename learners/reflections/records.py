"""The file of a snapshot's rationales, kept and dropped: written once, so a resumed training reads the same bytes.

A line is a rationale. The file lies in the snapshot's folder, and a copy beside each adapter that learned from it.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, ValidationError

from learners.settings import LearnerSettings
from learners.trajectories import Rationale, Trajectory
from ratchet_client.ids import content_id
from ratchet_client.settings import FrozenModel
from streams.environments.harness import ChatHarness
from streams.errors import TrainingError
from streams.runtime.files import write_atomically

KEPT = "kept"
_REMEDY = "Remove it and begin the training again: it is written once more."


class Reflection(FrozenModel):
    """A rationale for `action` at state `step` of an episode. It is learned unless `dropped` has a reason.

    `state` is what the agent was shown last, `alternatives` are the actions that were compared. `detail` is the error
    for which a writer wrote nothing.
    """

    episode_id: str
    step: int
    writer: str
    text: str
    dropped: str = ""
    detail: str = ""
    state: str
    action: str
    alternatives: tuple[str, ...] = Field(default=())


@dataclass(frozen=True, slots=True)
class ReflectionFile:
    """A file of rationales: its path, its content's SHA-256 and what it holds."""

    path: Path
    sha256: str
    reflections: tuple[Reflection, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of rationales by `writer/kept`, or `writer/` and the reason for which they were dropped."""
        return counts(self.reflections)

    @property
    def kept(self) -> int:
        return sum(not each.dropped for each in self.reflections)


def reflections_path(
    snapshot: Path, settings: LearnerSettings, base: Path, harness: ChatHarness | None, seed: int
) -> Path:
    """The file of the rationales of a snapshot; its name depends on all that they depend on but the writer's answers.

    The key of the writer's server is not among it: with a new one the same is asked.
    """
    read_as = "" if harness is None else f"{harness.reply} {harness.max_tokens}"
    written_by = settings.reflection.model_dump_json(exclude={"api_key"})
    name = content_id(written_by, str(settings.reasoning), base.name, read_as, str(seed))
    return snapshot / f"reflections-{name[:16]}.jsonl"


def write_reflections(path: Path, reflections: Iterable[Reflection]) -> ReflectionFile:
    """Write a file of rationales."""
    write_atomically(path, b"".join(f"{each.model_dump_json()}\n".encode() for each in reflections))
    return find_reflections(path)


def find_reflections(path: Path) -> ReflectionFile:
    """The file of rationales at `path`. Raises `TrainingError` as `read_reflections`."""
    content = _content(path)
    return ReflectionFile(path, hashlib.sha256(content).hexdigest(), tuple(_parsed(content, path)))


def read_reflections(path: Path, sha256: str | None = None) -> list[Reflection]:
    """The rationales in a file. Raises `TrainingError` where it is missing, damaged, or not the one of `sha256`."""
    content = _content(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise TrainingError(f"the rationales in {path} have changed since the training was begun. {_REMEDY}")
    return _parsed(content, path)


def counts(reflections: Iterable[Reflection]) -> dict[str, int]:
    """The number of rationales by `writer/kept`, or `writer/` and the reason for which they were dropped."""
    return dict(sorted(Counter(f"{each.writer}/{each.dropped or KEPT}" for each in reflections).items()))


def with_rationales(trajectories: Sequence[Trajectory], reflections: Iterable[Reflection]) -> list[Trajectory]:
    """The trajectories with the rationales that were kept."""
    kept: dict[str, list[Rationale]] = defaultdict(list)
    for each in reflections:
        if not each.dropped:
            kept[each.episode_id].append(Rationale(each.step, each.text, each.writer))
    return [replace(one, rationales=(*one.rationales, *kept[one.episode_id])) for one in trajectories]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainingError(f"the rationales of the training cannot be read: {error}. Begin it again.") from error


def _parsed(content: bytes, path: Path) -> list[Reflection]:
    try:
        return [Reflection.model_validate_json(line) for line in content.splitlines()]
    except ValidationError as error:
        raise TrainingError(f"{path} is no file of rationales: {error.errors()[0]['msg']}. {_REMEDY}") from error
