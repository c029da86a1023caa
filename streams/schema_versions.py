"""The versions of the formats that outlive a process: `/version` of every role tells them."""

from typing import Final

EVENTS: Final = 2
STORE: Final = 2
