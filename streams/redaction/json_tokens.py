"""The texts and numbers of valid JSON, where they stand in it: one can be replaced, and the rest stays as it is."""

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from streams.errors import UnjudgeableError

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++')
# In the schema of a parameter, or what is said of a setting, these stand for its value: they belong to its name.
_VALUES_OF_A_NAME = frozenset({'"default"', '"const"', '"example"', '"examples"', '"value"'})
# In a schema, the names of other parameters stand under these and a parameter's name.
_NAMES_BY_NAME = frozenset({'"dependentRequired"', '"dependencies"'})


class Token(NamedTuple):
    """A string or number at `start` to `end`: the name of a member, or a value.

    `under` is the name, as it is written, that a value stands under, also within lists; `container` the number of the
    object or list around it.
    """

    start: int
    end: int
    is_name: bool
    under: str
    container: int


def tokens(text: str, deepest: int = sys.maxsize) -> Iterator[Token]:
    """The strings and numbers of valid JSON, in its order. Raises `UnjudgeableError` where it is nested deeper.

    >>> text = '{"a": [1, true]}'
    >>> [(text[token.start : token.end], token.under) for token in tokens(text)]
    [('"a"', '""'), ('1', '"a"')]
    """
    # Of each container around the token: whether it is an object, the name of its next value, and its number.
    objects, names, numbers = [False], ['""'], [0]
    containers = 0
    naming = False
    for match in _TOKEN.finditer(text):
        written = match[0]
        if written in "{[":
            if len(names) > deepest:
                raise UnjudgeableError(f"JSON is nested more than {deepest} deep")
            containers += 1
            naming = written == "{"
            objects.append(naming)
            names.append(names[-1])
            numbers.append(containers)
        elif written in "}]":
            objects.pop()
            names.pop()
            numbers.pop()
        elif written in ",:":
            naming = written == "," and objects[-1]
        elif naming:
            yield Token(match.start(), match.end(), True, names[-2], numbers[-1])
            inherits = written in _VALUES_OF_A_NAME or names[-2] in _NAMES_BY_NAME
            names[-1] = names[-2] if inherits else written
        elif written not in ("true", "false", "null"):
            yield Token(match.start(), match.end(), False, names[-1], numbers[-1])
