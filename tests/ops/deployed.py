"""How deployments are read: the settings that a container's variables give, and the tools that check files."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, SecretStr

from daemon.config import PREFIX, Settings
from daemon.roles import Role
from ops.partial_locks import ROOT

OPS = ROOT / "ops"
HOME = "/var/lib/ratchet"
USER = 10001
# Read by clients, and by roles that ask others; it is not a setting.
TOKEN = "RATCHET_TOKEN"


def settings_of(variables: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a process with these variables. Raises `ConfigurationError` where one of them is none.

    `folder` is an empty one, in which no `ratchet.toml` is found.
    """
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        for name, value in variables.items():
            if name.startswith(PREFIX) and name != TOKEN:
                patch.setenv(name, value)
        return Settings.load()


def health_port(role: Role, settings: Settings) -> int:
    """Return where a role answers `/healthz`."""
    return {
        Role.RECORD: settings.store.port,
        Role.BRANCH: settings.health.branch_port,
        Role.LEARN: settings.health.learn_port,
        Role.SERVE: settings.serving.port,
        Role.ASSEMBLE: settings.assembly.port,
        Role.OTLP: settings.otlp.port,
    }[role]


def host_of(role: Role, settings: Settings) -> str:
    """Return where a role listens."""
    return {
        Role.RECORD: settings.store.host,
        Role.BRANCH: settings.health.host,
        Role.LEARN: settings.health.host,
        Role.SERVE: settings.serving.host,
        Role.ASSEMBLE: settings.assembly.host,
        Role.OTLP: settings.otlp.host,
    }[role]


def secret_variables(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """Yield the variables of all settings that are kept secret."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from secret_variables(field.annotation, f"{variable}__")
        elif _is_secret(field.annotation) or any(map(_is_secret, _parts(field.annotation))):
            yield variable


def _parts(annotation: object) -> Iterator[object]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _is_secret(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, SecretStr)


def tool(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, **variables: str) -> str:
    """Return what a command prints on stdout; the test fails with what it says on stderr."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
