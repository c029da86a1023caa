"""Runs a training job in a process of its own. The learner role calls `run_training` once per cycle."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from learners.settings import Progress, TrainingJob
from streams.errors import TrainingError
from streams.runtime.json_lines import locked

_STDERR_LINES = 20
_LOCK = "lock"
_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def run_training(job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> None:
    """Train the job's adapter into `job.output`; returns when it is written.

    Raises `TrainingError`, with the reason that the process gave, when it did not produce an adapter. Cancelling kills
    the process.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    # The kernel lets go of it when this process ends, however it ends.
    with locked(job.output / _LOCK, wait=False):
        await _train(job, on_progress)


def remove_leftovers(folder: Path) -> tuple[str, ...]:
    """Remove what trainings of processes that are gone left below `folder`; returns the names of those folders.

    A training that failed leaves its folder, too, until the next one begins.
    """
    removed = []
    for path in sorted(folder.glob("*")):
        if not path.is_dir() or not _NAME.fullmatch(path.name):
            continue
        try:
            with locked(path / _LOCK, wait=False):
                shutil.rmtree(path)
        except OSError:
            continue  # another process trains into it, or may alone remove it
        removed.append(path.name)
    return tuple(removed)


async def _train(job: TrainingJob, on_progress: Callable[[Progress], None] | None) -> None:
    document = job.output / "job.json"
    document.write_text(job.model_dump_json(indent=2))
    # Idle threads that spin would take the cores from whatever serves beside the training.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(job.settings.threads)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "learners.trainer", str(document), str(os.getpid())),
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
        raise TrainingError(f"training into {job.output} failed with status {status}: {_reason(last)}")


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
