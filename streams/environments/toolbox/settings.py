"""The operator's settings of the environment `toolbox`: which folder it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from ratchet_client.settings import FrozenModel
from streams.environments.environment import WORKING_FOLDER
from streams.environments.toolbox.definition import ToolboxDefinition
from streams.errors import SandboxError


def _absolute(path: Path, info: ValidationInfo) -> Path:
    # A sandbox works in a folder of its own; what is meant is the one of the process that started it.
    return Path((info.context or {}).get(WORKING_FOLDER, ".")).absolute() / path.expanduser()


class ToolboxSettings(FrozenModel):
    """Settings of the environment `toolbox`."""

    folder: Annotated[Path, AfterValidator(_absolute)] = Field(
        description="The folder with toolbox.toml; a relative one is below the folder in which Ratchet was started."
    )
    states: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        default=None,
        description="The folder of recorded initial states: each a file that is named by the SHA-256 of its content.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest reply of a policy, in tokens, instead of the one of toolbox.toml."
    )

    def readable(self) -> tuple[Path, ...]:
        """The paths that its sandboxes must be able to read."""
        return (self.folder,) if self.states is None else (self.folder, self.states)

    def shares_processes(self) -> bool:
        """Return whether no tool runs in the process that judges, nor keeps anything in its own."""
        try:
            return ToolboxDefinition.read(self.folder).file.stateless
        except SandboxError:
            return False

    def other_names(self) -> Mapping[str, tuple[str, ...]]:
        """By the hash of an opening the ids of the tasks that begin with it."""
        found = ToolboxDefinition.read(self.folder).by_opening
        return {name: tuple(task.task_id for task in tasks) for name, tasks in found.items()}
