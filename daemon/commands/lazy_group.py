"""A group of commands of which each is imported when it is called: what one needs may take seconds to import."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command as `--help` lists it.

    `target` is MODULE:NAME of its function, or of its `typer.Typer` where it has commands of its own. `summary` is the
    first paragraph of its own help.
    """

    target: str
    summary: str

    def load(self, name: str) -> TyperCommand | TyperGroup:
        """Import the command, and give it this name."""
        module, _, attribute = self.target.partition(":")
        with _nothing_collected():
            loaded = getattr(import_module(module), attribute)
        if isinstance(loaded, typer.Typer):
            return get_group(loaded)
        alone = typer.Typer(add_completion=False)
        alone.command(name)(loaded)
        command = get_command(alone)
        assert isinstance(command, TyperCommand)
        return command


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Within it no garbage is collected, and what there is afterwards is never looked at.

    Modules stay. Looking for garbage among them, at their import and at the end, takes as long as a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """The class of a group that has these commands by name, for `typer.Typer(cls=...)`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, listed in commands.items():
                self.add_command(TyperCommand(name, help=listed.summary))

        def resolve_command(  # type: ignore[override]  # the base's types are private
            self, ctx: typer.Context, args: list[str]
        ) -> tuple[str | None, TyperCommand | TyperGroup | None, list[str]]:
            name, _, rest = super().resolve_command(ctx, args)
            return name, None if name is None else commands[name].load(name), rest

    return LazyGroup
