"""The versions of the formats that outlive a process: `/version` of every role tells them, `ratchet upgrade` compares.

Formats that are not here carry no version: the audit log and adapters vouch for themselves, by a chain of hashes and
by the digest that names them, so what is whole and cannot be read is of another version; the others are read with
whatever fields older versions left out.
"""

from typing import Final

from ratchet_client.events import SCHEMA_VERSION

EVENTS: Final = SCHEMA_VERSION
"""Events, and the branch requests and results of Ratchet's own roles: `schema` of each record."""
CALLS: Final = 1
"""Captured calls, feedback, spans and log records that wait to be assembled: `schema` of each record, 1 left out."""
STORE: Final = 2
"""The store's tables: the table `schema_version`."""
ASSEMBLY: Final = 1
"""The assembler's tables: SQLite's `user_version`, 0 in files of before."""
SNAPSHOTS: Final = 4
"""`schema_version` of a snapshot's manifest, 1 in those of before."""
TOKENS: Final = 1
"""`version` of `tokens.json`."""
BACKUPS: Final = 1
"""`format` of a backup's manifest."""

VERSIONS: Final = {
    "events": EVENTS,
    "calls": CALLS,
    "store": STORE,
    "assembly": ASSEMBLY,
    "snapshots": SNAPSHOTS,
    "tokens": TOKENS,
    "backups": BACKUPS,
}
