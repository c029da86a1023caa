"""Runs a training job in a process of its own. The learner role calls `run_training` once per cycle."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import ValidationError

from learners.settings import CHECKPOINT, Progress, TrainingJob
from streams.errors import TrainingError
from streams.runtime.computing import COMPUTE_VARIABLES
from streams.runtime.files import write_atomically
from streams.runtime.json_lines import locked

_STDERR_LINES = 20
_LOCK = "lock"
JOB = "job.json"
# The id of a job; older versions named the folder by a UUID.
_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KILLED = (
    "it was killed, which the kernel does when memory runs out: lower learner.max_length or learner.lora.layers, set "
    "learner.gradient_checkpointing, or give it more memory; `ratchet doctor` says how much it needs"
)


async def run_training(job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> None:
    """Train the job's adapter into `job.output`; returns when it is written. A checkpoint there is gone on from.

    Raises `TrainingError`, with the reason that the process gave, when it did not produce an adapter. Cancelling kills
    the process.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    # The kernel lets go of it when this process ends, however it ends.
    with locked(job.output / _LOCK, wait=False):
        await _train(job, on_progress)


def interrupted(folder: Path) -> tuple[TrainingJob, ...]:
    """The jobs below `folder` that left a checkpoint, from which they would go on; those under training not."""
    found = []
    for path in _unlocked(folder):
        try:
            job = TrainingJob.model_validate_json((path / JOB).read_bytes())
        except (OSError, ValidationError):
            continue  # an older version's, or damaged: it is removed as a leftover
        if (path / CHECKPOINT).exists() and path.name == job.job_id:
            found.append(job)
    return tuple(found)


def remove_leftovers(folder: Path, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Remove what trainings of processes that are gone left below `folder`; returns the names of those folders.

    A training that failed leaves its folder, too, until the next one begins. Those named in `keep` stay.
    """
    removed = []
    for path in _unlocked(folder):
        if path.name in keep:
            continue
        try:
            with locked(path / _LOCK, wait=False):
                shutil.rmtree(path)
        except OSError:
            continue  # another process trains into it, or may alone remove it
        removed.append(path.name)
    return tuple(removed)


def _unlocked(folder: Path) -> list[Path]:
    """The folders of trainings below `folder` that no process trains into."""
    found = []
    for path in sorted(folder.glob("*")):
        if not path.is_dir() or not _NAME.fullmatch(path.name):
            continue
        try:
            with locked(path / _LOCK, wait=False):
                found.append(path)
        except OSError:
            continue  # another process trains into it, or may alone look at it
    return found


async def _train(job: TrainingJob, on_progress: Callable[[Progress], None] | None) -> None:
    document = job.output / JOB
    write_atomically(document, job.model_dump_json(indent=2).encode())
    environment = COMPUTE_VARIABLES | os.environ | {"OMP_NUM_THREADS": str(job.settings.threads)}
    process = await asyncio.create_subprocess_exec(
        *_command(job, document),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None  # they are pipes
    assert process.stderr is not None
    try:
        errors = asyncio.create_task(_last_lines(process.stderr))
        async for line in process.stdout:
            if on_progress is not None:
                on_progress(Progress.model_validate_json(line))
        status = await process.wait()
        last = await errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        reason = _KILLED if status == -signal.SIGKILL else _reason(last)
        raise TrainingError(f"training into {job.output} failed with status {status}: {reason}")


def _command(job: TrainingJob, document: Path) -> list[str]:
    """The trainer itself, or accelerate's launcher, with whose process those that it starts end."""
    if job.settings.accelerate is None:
        return [sys.executable, "-m", "learners.trainer", str(document), str(os.getpid())]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(job.settings.accelerate)]
    return [*launcher, "-m", "learners.trainer", str(document)]


async def _last_lines(stream: asyncio.StreamReader) -> list[str]:
    lines: deque[str] = deque(maxlen=_STDERR_LINES)
    async for line in stream:
        lines.append(line.decode(errors="replace").rstrip())
    return list(lines)


def _reason(lines: list[str]) -> str:
    for line in reversed(lines):
        if line.startswith('{"error":'):
            return str(json.loads(line)["error"])
    return " | ".join(lines[-3:]) or "it gave no reason"
