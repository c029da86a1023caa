"""Fingerprints of the files that a verdict rests on, as the audit log keeps them from the end of a cycle on.

The learner takes them; `ratchet verify` compares.
"""

import hashlib
from pathlib import Path

from pydantic import Field

from ratchet_client.settings import FrozenModel


class Fingerprint(FrozenModel):
    """The SHA-256 of the first `size` bytes of a file. Files that only grow are longer later."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, content: bytes) -> "Fingerprint":
        """The fingerprint of a whole content."""
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def fits(self, content: bytes, *, grows: bool) -> bool:
        """Return whether `content` is what this was taken of; of a file that `grows`, whether it begins so."""
        begun = content[: self.size] if grows else content
        return Fingerprint.of(begun) == self


def fingerprints(home: Path, files: tuple[Path, ...]) -> dict[str, Fingerprint]:
    """The fingerprints of those of the `files` that are there, by their paths below `home`."""
    return {str(path.relative_to(home)): Fingerprint.of(path.read_bytes()) for path in files if path.is_file()}
