"""`ratchet token new | list | revoke`: who may ask Ratchet over HTTP, and what. They write a file, so work offline."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import AwareDatetime, ValidationError
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption
from daemon.config import Settings
from daemon.console import plain, print_json
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole, Token, duration, is_expired
from streams.errors import ConfigurationError
from streams.settings import FrozenModel

token = typer.Typer(name="token", no_args_is_help=True, help="Who may ask Ratchet over HTTP, and what.")

NameArgument = Annotated[str, typer.Argument(help="Whose token it is: the principal, and the actor in the audit log.")]


class ListedToken(FrozenModel):
    """A token as `--json` prints it."""

    name: str
    roles: tuple[AccessRole, ...]
    created: AwareDatetime
    expires: AwareDatetime | None
    expired: bool

    @classmethod
    def of(cls, kept: Token) -> "ListedToken":
        expired = is_expired(kept, datetime.now(UTC))
        return cls(name=kept.name, roles=kept.roles, created=kept.created, expires=kept.expires, expired=expired)


class ListedTokens(FrozenModel):
    tokens: tuple[ListedToken, ...]


@token.command("new")
def new(
    name: NameArgument,
    role: Annotated[list[AccessRole], typer.Option(help="What it may do; may be given several times.")],
    expires: Annotated[str | None, typer.Option(help="After which time it ends, such as 90d or 12h.")] = None,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, this once. From the first one on, nobody is let in without.

    To rotate, make another one of the same name, then revoke the older ones.
    """
    try:
        lifetime = None if expires is None else duration(expires)
        made = _file(config).issue(name, role, lifetime)
    except ValidationError as error:
        raise typer.BadParameter(f"{name!r} is not a name: {error.errors()[0]['msg']}", param_hint="NAME") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error
    typer.echo(made)
    typer.echo("it is shown this once, and kept nowhere; clients send it as a bearer token or API key", err=True)


@token.command("list")
def list_tokens(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all tokens, but not what they are: only their hashes are kept."""
    listed = ListedTokens(tokens=tuple(ListedToken.of(kept) for kept in _file(config).read()))
    if as_json:
        print_json(listed.model_dump_json())
        return
    table = Table("name", "roles", "created", "expires")
    for each in listed.tokens:
        ends = "never" if each.expires is None else f"{each.expires:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            plain(each.name),
            ", ".join(each.roles),
            f"{each.created:%Y-%m-%d %H:%M} UTC",
            "expired" if each.expired else ends,
        )
    Console().print(table)


@token.command("revoke")
def revoke(
    name: NameArgument,
    older: Annotated[bool, typer.Option("--older", help="Only those that the newest one replaces.")] = False,
    config: ConfigOption = None,
) -> None:
    """End all tokens of a name, within a second in everything that runs."""
    file = _file(config)
    gone = file.revoke(name, only_older=older)
    if not gone:
        raise ConfigurationError(f"no token of {name} is to be revoked in {file.path}; `ratchet token list` has them")
    typer.echo(f"revoked {len(gone)} of {name}")
    if not file.read():
        typer.echo(f"no token is left, so nobody is let in; remove {file.path} to ask for none", err=True)


def _file(config: ConfigOption) -> TokenFile:
    return TokenFile(Settings.load(config).home)
