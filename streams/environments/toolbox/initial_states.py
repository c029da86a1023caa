"""Recorded initial states: files named by the SHA-256 of their content, such as copies of a database.

The toolbox begins an episode in one where its task names it.
"""

import hashlib
from pathlib import Path

from streams.environments.toolbox import databases
from streams.errors import SandboxError


def put_state(states: Path, reference: str, file: Path) -> None:
    """Write the state of that `reference`, which is in the folder `states`, to `file`.

    Raises `SandboxError` where there is none, or what is there is something else.
    """
    digest = reference.removeprefix("sha256:")
    stored = states / digest
    try:
        content = stored.read_bytes()
    except OSError as error:
        raise SandboxError(
            f"the state {reference} cannot be read in {states}: {error.strerror}. Put the file there, named by its "
            "SHA-256 in hexadecimal, and let everybody read it."
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise SandboxError(f"the file {stored} is not what its name says. Put an unchanged copy of the state there.")
    file.parent.mkdir(parents=True, exist_ok=True)
    # What is left of the database that lay there would be read as a part of this one.
    for end in ("", *databases.BESIDE):
        file.with_name(file.name + end).unlink(missing_ok=True)
    file.write_bytes(content)
