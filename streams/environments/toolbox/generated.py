"""Tasks that a toolbox generates: `toolbox.toml` names a program that makes a task out of a seed."""

import json
import re
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from streams.environments.toolbox.definition import (
    DEFINITION,
    RESERVED_FOLD,
    UNSOLVABLE_FOLD,
    ToolboxDefinition,
    ToolboxTask,
)
from streams.environments.toolbox.programs import Place, run_program
from streams.errors import SandboxError

_ID = re.compile(r"(?P<game>[^/]+)/(?P<fold>.+)/seed-(?P<seed>0|[1-9][0-9]*)")
_KEPT = 1024


def generated_id(game: str, fold: str, seed: int) -> str:
    """The id of the task that is made out of `seed`, like those of the fold."""
    return f"{game}/{fold}/seed-{seed}"


def generated_seed(task_id: str) -> int | None:
    """The seed of the generated task of that id; None for the id of another task."""
    named = _ID.fullmatch(task_id)
    return int(named["seed"]) if named is not None else None


def generated_task(definition: ToolboxDefinition, task_id: str) -> ToolboxTask | None:
    """The task of that id; None for the id of no generated task, or of one like the reserved fold's.

    The program reads `seed` and `fold`, and says the fields of a line of `tasks.jsonl` but the id and the fold. Raises
    `SandboxError` when it fails or says something else.
    """
    named = _ID.fullmatch(task_id)
    file = definition.file
    if (
        named is None
        or file.generate is None
        or named["game"] != file.name
        or named["fold"] in (RESERVED_FOLD, UNSOLVABLE_FOLD)
    ):
        return None
    if named["fold"] not in {task.fold for task in definition.tasks}:
        return None
    return _made(_Key(definition), task_id, named["fold"], int(named["seed"]))


class _Key:
    """A definition as a key: what is not hashable in it is in its folder and its file's text."""

    def __init__(self, definition: ToolboxDefinition) -> None:
        self.definition = definition
        self._key = (str(definition.folder), definition.file.model_dump_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(_KEPT)
def _made(key: _Key, task_id: str, fold: str, seed: int) -> ToolboxTask:
    definition, program = key.definition, key.definition.file.generate
    assert program is not None  # the caller has looked
    with tempfile.TemporaryDirectory(prefix="toolbox-") as folder:
        place = Place(Path(folder), definition.file.variables)
        said = run_program(program, definition.folder, place, {"seed": seed, "fold": fold})
    try:
        # What a function returns becomes what a program would print: its tuples are lists, too.
        fields = json.loads(said.strip().rpartition("\n")[2] if isinstance(said, str) else json.dumps(said))
        if not isinstance(fields, Mapping):
            raise ValueError(f"it is {type(fields).__name__}, and no object")
        return ToolboxTask.model_validate({**fields, "task_id": task_id, "fold": fold})
    except (TypeError, ValueError, ValidationError) as error:
        raise SandboxError(
            f"what generate of {definition.folder / DEFINITION} says of the seed {seed} is no task: {error}. Let its "
            "last line, or what the function returns, have the fields of a line of tasks.jsonl."
        ) from error
