"""`ratchet forget`: a principal revokes consent."""

from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption, JsonOption, find_kafka, operator_name, run_async
from daemon.commands.why import exposure_table
from daemon.config import Settings
from daemon.console import print_json
from daemon.learning import forgetting
from daemon.learning.forgetting import ForgetReport
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from streams.events import RetractionEvent
from streams.kafka.signatures import read_operator_key
from streams.store.client import StoreClient


def forget(
    principal: Annotated[str, typer.Option(help="Whose data no later training set may hold.")],
    reason: Annotated[str, typer.Option(help="Why; it is stored with the retraction.")] = "asked for by an operator",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a principal out of everything that is trained from now on, and mark the adapters that saw its data.

    The retraction holds permanently, for episodes of that name that come later too. The champion keeps serving until a
    replacement that did not see the data passes the gate. Nothing is erased: see "Revoke consent" in docs/operating.md.
    """
    if not principal:
        raise typer.BadParameter("name the principal that revokes consent", param_hint="--principal")
    report = run_async(_forget(Settings.load(config), principal, reason))
    if as_json:
        print_json(report.model_dump_json())
        return
    typer.echo(
        f"retraction {report.retraction} is stored as sequence {report.sequence}: no later snapshot holds any of the "
        f"{report.episodes} episodes of {report.principal!r}, or of those to come"
    )
    if report.adapters:
        Console().print(exposure_table(report.adapters, "marked for retraining"))
    typer.echo(_consequence(report))


async def _forget(settings: Settings, principal: str, reason: str) -> ForgetReport:
    registry = Registry(settings.home)
    async with StoreClient(settings.store_url) as store:
        await store.status()  # where nothing runs, that is what to say, and not that there is no key yet
        return await forgetting.forget(
            RetractionEvent(principal=principal, reason=reason),
            operator_name(),
            await find_kafka(settings),
            _key(settings, principal),
            store,
            registry,
            Provenance(AdapterStore(settings.home / "adapters"), settings.home / "snapshots"),
        )


def _key(settings: Settings, principal: str) -> bytes:
    """The principal's own key, or else the operator's."""
    secret = settings.admission.principals.get(principal, settings.admission.operator_key)
    return secret.get_secret_value().encode() or read_operator_key(settings.store.path.parent)


def _consequence(report: ForgetReport) -> str:
    if not report.adapters:
        return "no adapter saw this principal's data"
    parent = "the base model" if report.next_parent == BASE else report.next_parent[:12]
    if not report.champion_saw:
        return f"what serves did not see this principal's data; the next cycle trains on from {parent}"
    return (
        f"the champion {report.champion[:12]} saw this principal's data. It keeps serving until a replacement, trained "
        f"on from {parent}, passes the gate; `ratchet rollback --to ADAPTER|base` takes it out at once"
    )
