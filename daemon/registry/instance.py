"""The id of a home, which is a part of every name that it gives at an inference server. The registry asks for it.

Homes that share a server tell their adapters apart by it, also a home and its copy, whose audit logs begin alike.
"""

import os
import secrets
from pathlib import Path

from pydantic import Field, ValidationError

from ratchet_client.settings import FrozenModel
from streams.runtime.json_lines import locked, read_all

INSTANCE_FILE = "instance.json"


class Instance(FrozenModel):
    """The id, and the place on disk of the file that holds it: a copy of the file lies elsewhere."""

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    device: int
    inode: int


def instance_of(home: Path) -> str:
    """The id of `home`, made the first time, and made again for a copy. Raises `OSError`."""
    with locked(home / INSTANCE_FILE) as file:
        place = os.fstat(file.fileno())
        try:
            instance = Instance.model_validate_json(read_all(file))
            if (instance.device, instance.inode) == (place.st_dev, place.st_ino):
                return instance.id
        except ValidationError:
            pass  # new, or torn by a crash before any name was given by it
        instance = Instance(id=secrets.token_hex(4), device=place.st_dev, inode=place.st_ino)
        file.truncate(0)
        file.write(instance.model_dump_json().encode() + b"\n")
        os.fsync(file.fileno())
        return instance.id
