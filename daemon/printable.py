"""Text of others, made safe for a terminal. What is stored stays as it was; only what is shown is changed.

Control codes are C0 but for line breaks and tabs, DEL and C1, such as those that begin an escape sequence, and what
turns the direction of a text.
"""

import re
from collections.abc import MutableMapping
from typing import Any

# JSON escapes C0 by itself. The rest may stand in it as it is, within texts alone.
_UNESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text without what would command the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)


def printable_json(document: str) -> str:
    r"""The same JSON without what would command the terminal: it is escaped, and read back as it was.

    >>> printable_json('"\x9b2J"')
    '"\\u009b2J"'
    """
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def printable_entry(logger: object, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: the entry with its texts printable."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = printable(value)
    return entry
