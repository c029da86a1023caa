"""Checkpoints of a training: from the newest it goes on after its process died, to the same bytes on CPU.

One file in the job's output folder, replaced atomically. It is of one job: another one in the same folder begins anew.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from learners.settings import CHECKPOINT
from streams.runtime.files import replacing

MOST_STARTS = 3
"""After so many starts from one checkpoint it is dropped: what is in it may be what the process dies of."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after `updates` updates, in the stage numbered `stage`.

    `pools` are the examples still to come in this round, of each part of each of the stage's losses. `generator` draws
    the rounds, `random` is Torch's own. `reference` are the weights at the beginning of the stage, None where none of
    its objectives compares with them.
    """

    job: str
    updates: int
    stage: int
    pools: list[list[list[int]]]
    left_out: dict[str, str]
    generator: torch.Tensor
    random: torch.Tensor
    parameters: list[torch.Tensor]
    reference: list[torch.Tensor] | None
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


class Checkpoints:
    """The newest checkpoint of the job whose id is `job`, in `folder`."""

    def __init__(self, folder: Path, job: str) -> None:
        self._path = folder / CHECKPOINT
        self._starts = folder / f"{CHECKPOINT}.starts"
        self._job = job

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the newest. Raises `OSError`."""
        # Not `asdict`, which would copy all tensors once more.
        fields = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
        with replacing(self._path) as file:
            torch.save(fields, file)
        self._starts.unlink(missing_ok=True)

    def read(self) -> Checkpoint | None:
        """The newest; None where there is none, it is of another job, damaged, or was started from too often."""
        if not self._path.exists():
            return None
        starts = self._starts.stat().st_size if self._starts.exists() else 0
        try:
            found = Checkpoint(**torch.load(self._path, map_location="cpu", weights_only=True))
        # Those of damaged files; older versions' files have other fields.
        except (OSError, EOFError, RuntimeError, TypeError, ValueError, KeyError, pickle.UnpicklingError):
            found = None
        if found is None or found.job != self._job or starts >= MOST_STARTS:
            self.remove()
            return None
        with self._starts.open("ab") as file:
            file.write(b".")
        return found

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._starts.unlink(missing_ok=True)
