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
from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole, RowFilter, Token, duration, is_expired, token_id

token = typer.Typer(name="token", no_args_is_help=True, help="Who may ask Ratchet over HTTP, and what.")

NameArgument = Annotated[str, typer.Argument(help="Whose token it is: the principal, and the actor in the audit log.")]


class ListedToken(FrozenModel):
    """A token as `--json` prints it."""

    id: str
    name: str
    roles: tuple[AccessRole, ...]
    rows: RowFilter | None
    created: AwareDatetime
    expires: AwareDatetime | None
    expired: bool

    @classmethod
    def of(cls, kept: Token) -> "ListedToken":
        expired = is_expired(kept, datetime.now(UTC))
        return cls(
            id=token_id(kept.sha256),
            name=kept.name,
            roles=kept.roles,
            rows=kept.rows,
            created=kept.created,
            expires=kept.expires,
            expired=expired,
        )


class ListedTokens(FrozenModel):
    tokens: tuple[ListedToken, ...]


@token.command("new")
def new(
    name: NameArgument,
    role: Annotated[list[AccessRole], typer.Option(help="What it may do; may be given several times.")],
    expires: Annotated[str | None, typer.Option(help="After which time it ends, such as 90d or 12h.")] = None,
    principal_prefix: Annotated[
        str | None, typer.Option(help="It may query episodes of principals whose names begin so, and nothing else.")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(help="It may query episodes of this agent, and nothing else; may be given several times."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, this once. From the first one on, nobody is let in without.

    To rotate, make another one of the same name, then revoke the older ones.
    """
    try:
        lifetime = None if expires is None else duration(expires)
        is_bound = principal_prefix is not None or bool(agent)
        agents = tuple(agent) if agent else None
        rows = RowFilter(principal_prefix=principal_prefix, agents=agents) if is_bound else None
        made = _file(config).issue(name, role, lifetime, rows)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "role"
        hint = {"name": "NAME", "agents": "--agent"}.get(field, f"--{field.replace('_', '-')}")
        raise typer.BadParameter(f"{first['input']!r:.100}: {first['msg']}", param_hint=hint) from error
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
    table = Table("name", "id", "roles", "reads", "created", "expires")
    for each in listed.tokens:
        ends = "never" if each.expires is None else f"{each.expires:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            plain(each.name),
            each.id,
            ", ".join(each.roles),
            plain("" if each.rows is None else _told(each.rows)),
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


def _told(rows: RowFilter) -> str:
    parts = [f"principals {rows.principal_prefix}…"] if rows.principal_prefix is not None else []
    return "; ".join([*parts, *([f"agents {', '.join(rows.agents)}"] if rows.agents is not None else [])])


def _file(config: ConfigOption) -> TokenFile:
    return TokenFile(Settings.load(config).home)
