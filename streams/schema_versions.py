"""The versions of the formats that outlive a process: `/version` of every role tells them."""

from typing import Final

from ratchet_client.events import SCHEMA_VERSION

EVENTS: Final = SCHEMA_VERSION
STORE: Final = 2
