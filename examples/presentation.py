"""Runs a comparison in the domain that is set, or else in the text game, and prints its report."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TypeVar

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.demo.text_game import TWC
from ratchet_client.errors import RatchetError

Report = TypeVar("Report", bound=BaseModel)


def settings() -> Settings:
    """The settings of the environment and of `ratchet.toml`, with the text game where they name no domain."""
    given = Settings.read()
    return given if given.domain.environment else given.model_copy(update={"domain": TWC})


def present(
    program: str,
    compare: Callable[[Narrator], Coroutine[None, None, Report]],
    table: Callable[[Report], Table] | None,
    *,
    as_json: bool = False,
) -> int:
    """Compare, and print the report as a table or, without one, as JSON; returns the exit status."""
    try:
        with Narrator() as narrator:
            report = asyncio.run(compare(narrator))
    except RatchetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    if as_json or table is None:
        print_json(report.model_dump_json())
    else:
        Console(width=120).print(table(report))
    return 0
