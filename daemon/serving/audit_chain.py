"""The audit log as metrics read it: whether its chain holds, and its entries while they can be read."""

from dataclasses import dataclass, field

from daemon.registry.audit import AuditEntry, AuditLog
from streams.errors import AuditError


@dataclass(slots=True)
class AuditChain:
    """Reads `audit`, and checks every hash, again when the file has changed."""

    audit: AuditLog
    _read: tuple[int, int, int] | None = None
    _broken: bool = False
    _entries: list[AuditEntry] = field(default_factory=list)

    def is_broken(self) -> bool:
        """Return whether a line of the log is not what was written."""
        self._look()
        return self._broken

    def entries(self) -> list[AuditEntry]:
        """All entries; of a log that cannot be read those of before, so that all else that is shown still is."""
        self._look()
        return self._entries

    def _look(self) -> None:
        try:
            state = self.audit.path.stat()
        except OSError:
            return
        seen = (state.st_ino, state.st_size, state.st_mtime_ns)
        if self._read == seen:
            return
        try:
            self._entries = self.audit.read()
            self.audit.verify()
            self._broken = False
        except AuditError:
            self._broken = True
        self._read = seen
