"""Runs what a toolbox brings beside its tools, on a session's state folder: the setup of a task, and the check."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, FiniteFloat, JsonValue, ValidationError

from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.environments.toolbox.definition import Program
from streams.errors import SandboxError

_TAIL = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A session's state folder, and the environment variables of everything that works on it."""

    state: Path
    variables: Mapping[str, str]

    @property
    def exported(self) -> Mapping[str, str]:
        """The variables, and where the state is."""
        return {**self.variables, "TOOLBOX_STATE": str(self.state)}


class CheckResult(FrozenModel):
    """A check's result for a state. `score` runs from 0 to 1; without one, success is 1."""

    success: bool
    score: FiniteFloat | None = Field(default=None, ge=0, le=1)

    @property
    def share(self) -> float:
        return float(self.success) if self.score is None else self.score


def command_line(command: Sequence[str], folder: Path) -> list[str]:
    """`command` with this Python for `python`, and the whole path of each argument that is a file in `folder`."""
    program, *arguments = command
    if program in ("python", "python3"):
        program = sys.executable
    elif (folder / program).is_file():
        program = str(folder / program)
    return [program, *(str(folder / each) if (folder / each).is_file() else each for each in arguments)]


def variables_of_programs(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """All environment variables of a program of the toolbox. It finds the Python files beside `toolbox.toml`."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", **variables}


def run_program(program: Program, folder: Path, place: Place, told: Mapping[str, JsonValue]) -> object:
    """Run a command, or call a function, in the state folder; what it prints or returns.

    A command reads `told` as JSON on its standard input. Of a function they are the arguments, as far as it takes them.
    Raises `SandboxError` when it fails, with what it said.
    """
    if isinstance(program, str):
        module, _, name = program.partition(":")
        function = load_functions(folder / f"{module}.py").get(name)
        if function is None:
            raise SandboxError(f"{folder / module}.py has no function {name!r}. Write it, or correct the name.")
        taken = inspect.signature(function).parameters
        try:
            with at(place):
                return function(**{key: value for key, value in told.items() if key in taken})
        except RatchetError:
            raise
        except (Exception, SystemExit) as error:
            raise SandboxError(f"{program} of the toolbox {folder} failed: {error!r}. Correct it.") from error
    try:
        done = subprocess.run(
            command_line(program, folder),
            cwd=place.state,
            env=variables_of_programs(folder, place.exported),
            input=json.dumps(told),
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise SandboxError(f"{program[0]!r} of the toolbox {folder} cannot be started: {error}.") from error
    if done.returncode:
        raise SandboxError(
            f"{' '.join(program)!r} of the toolbox {folder} ended with {done.returncode}. It last said: "
            f"{done.stderr.strip()[-_TAIL:] or done.stdout.strip()[-_TAIL:] or 'nothing'}"
        )
    return done.stdout


def run_check(program: Program, folder: Path, place: Place, told: Mapping[str, JsonValue]) -> CheckResult:
    """Run the check on the state. Raises `SandboxError` when it fails or says something else than it should."""
    said = run_program(program, folder, place, told)
    try:
        match said:
            case str():
                # Programs may print before; the verdict is the last line.
                return CheckResult.model_validate_json(said.strip().rpartition("\n")[2])
            case bool():
                return CheckResult(success=said)
            case _:
                return CheckResult.model_validate(said)
    except ValidationError as error:
        raise SandboxError(
            f'the check of the toolbox {folder} says {str(said)[-200:]!r}. Its last line must be {{"success": true or '
            'false, "score": 0 to 1}; a function may return the same, or a truth value.'
        ) from error


@cache
def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"toolbox_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SandboxError(f"{path} is not a Python file. Name one.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SandboxError(f"{path} cannot be imported: {error!r}. {IMPORTABLE}") from error
    return module


IMPORTABLE = (
    "A sandbox reads the toolbox's folder, Python and what is installed with Ratchet; name other folders in "
    "branching.readable."
)


def load_functions(path: Path) -> dict[str, Callable[..., Any]]:
    """The public functions that the Python file defines. Raises `SandboxError` when it cannot be imported."""
    module = _module(path)
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Within it, this process works in the state folder and has the variables of the session."""
    folder, before = Path.cwd(), dict(os.environ)
    os.chdir(place.state)
    os.environ.update(place.exported)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
