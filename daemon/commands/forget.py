"""`ratchet forget`: a principal revokes consent."""

import json
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.erasing import Subject, erase_from, print_erased
from daemon.commands.erasures import log_statuses, print_statuses
from daemon.commands.options import ConfigOption, JsonOption, find_kafka, operator_name, run_async
from daemon.commands.why import exposure_table
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.learning import forgetting
from daemon.learning.forgetting import ForgetReport
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from ratchet_client.events import RetractionEvent
from streams.kafka.operator_key import read_operator_key
from streams.store.client import StoreClient
from streams.trust.groups import homes_in


def forget(
    principal: Annotated[str, typer.Option(help="Whose data no later training set may hold.")] = "",
    episode: Annotated[
        list[str] | None, typer.Option(help="With --erase, in place of a principal: an episode to erase.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is stored with the retraction.")] = "asked for by an operator",
    erase: Annotated[
        bool, typer.Option("--erase", help="Remove it from the store, snapshots and records, and adapters that saw it.")
    ] = False,
    retire_champion: Annotated[
        bool, typer.Option("--retire-champion", help="With --erase: roll back a champion that saw it.")
    ] = False,
    keep_log: Annotated[
        bool, typer.Option("--keep-log", help="With --erase: leave Kafka's topics to their retention.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say of each erasure what the log still holds, and until when.")
    ] = False,
    wait_s: Annotated[float, typer.Option(min=0, help="With --erase: how long to wait until it is done.")] = 600.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a principal out of everything that is trained from now on, and mark the adapters that saw its data.

    The retraction holds permanently, for episodes of that name that come later too. The champion keeps serving until a
    replacement that did not see the data passes the gate. Without --erase nothing is erased: see "Revoke consent" in
    docs/operating.md.
    """
    settings = Settings.load(config)
    if status:
        if principal or episode or erase:
            raise typer.BadParameter("--status stands alone")
        _status(settings, as_json)
        return
    if bool(principal) == bool(episode) or (episode and not erase):
        raise typer.BadParameter("name the principal that revokes consent, or episodes to --erase")
    report = run_async(_forget(settings, principal, reason)) if principal else None
    done = None
    if erase:
        subject = Subject(principal or None, tuple(episode or ()))
        done = run_async(erase_from(settings, subject, reason, retire_champion, keep_log, wait_s, Narrator().say))
    if as_json:
        told = {"erasure": done.report.model_dump(mode="json")} if done else {}
        told |= {"log": done.log.model_dump(mode="json")} if done and done.log else {}
        print_json(json.dumps((report.model_dump(mode="json") if report else {}) | told))
        return
    if report is not None:
        _print(report)
    if done is not None:
        print_erased(done)


def _status(settings: Settings, as_json: bool) -> None:
    statuses = log_statuses(settings)
    if as_json:
        print_json(json.dumps([each.model_dump(mode="json") for each in statuses]))
    else:
        print_statuses(statuses)


def _print(report: ForgetReport) -> None:
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
            (home for home in homes_in(settings.home) if home != settings.home),
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
        others = [one.adapter[:12] for one in report.adapters if one.serves]
        if others:
            return f"{', '.join(others)}, which serve groups of their own, saw it, and keep serving until replaced"
        return f"what serves did not see this principal's data; the next cycle trains on from {parent}"
    return (
        f"the champion {report.champion[:12]} saw this principal's data. It keeps serving until a replacement, trained "
        f"on from {parent}, passes the gate; `ratchet rollback --to ADAPTER|base` takes it out at once"
    )
