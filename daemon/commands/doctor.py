"""`ratchet doctor`: is this installation fit to run, and does what runs work?

Each check of the set-up is a function of `CHECKS`: add one there. Those of what runs are in `running`.
"""

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.diagnosis import Diagnosis, Health
from daemon.commands.memory import check_memory
from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.commands.permissions import check_permissions
from daemon.commands.running import RUNNING, running_checks
from daemon.config import Settings
from daemon.console import account_told, plain, print_json
from daemon.learning.domain import RECORDED, SET, UNSET, check_domain, is_judged
from daemon.registry.registry import Registry
from daemon.registry.task_uses import account_summary
from learners.base_model import find_base
from ratchet_client.errors import BrokerError, ConfigurationError, RatchetError
from ratchet_client.settings import FrozenModel
from streams.errors import StoreError
from streams.intake.admission import AUTHENTICATE, UNAUTHENTICATED
from streams.kafka.retention import check_retention, retention_of
from streams.kafka.topics import cluster_id
from streams.store.ducklake import check_lake
from streams.trust.holdout import Split


class DoctorReport(FrozenModel):
    """The JSON of `ratchet doctor --json`."""

    checks: tuple[Diagnosis, ...]


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check that Ratchet can run here and, where it runs, that what it needs arrives.

    Exits with 1 if a check is an error, with 0 if there are only warnings.
    """
    report = DoctorReport(checks=tuple(diagnose(config)))
    if as_json:
        print_json(report.model_dump_json())
    else:
        Console().print(_table(report))
    if all(check.name != RUNNING for check in report.checks):
        typer.echo("Ratchet does not run, so that only the set-up was checked: ask again when it does", err=True)
    errors = [check for check in report.checks if check.status is Health.ERROR]
    if errors:
        raise RatchetError(f"{len(errors)} of {len(report.checks)} checks failed, first: {errors[0].message}")


def diagnose(config: Path | None) -> Iterator[Diagnosis]:
    """Each check in turn. Where the configuration cannot be read there is nothing else to check."""
    try:
        settings = Settings.load(config)
    except ConfigurationError as error:
        yield Diagnosis(
            name="configuration",
            status=Health.ERROR,
            message=str(error),
            remedy="correct it; `ratchet check-config` reads it again",
        )
        return
    yield Diagnosis(name="configuration", status=Health.OK, message="every setting is read")
    cluster = check_kafka(settings)
    yield cluster
    if cluster.status is Health.OK:
        # Not else, since it would wait as long again for the same cluster.
        yield check_topics(settings)
    for check in CHECKS:
        yield check(settings)
    yield from running_checks(settings)


def check_kafka(settings: Settings) -> Diagnosis:
    """The cluster answers, where one is configured."""
    name, bootstrap = "kafka", settings.kafka.bootstrap
    if not bootstrap:
        return Diagnosis(name=name, status=Health.OK, message="no cluster is configured: `ratchet run` starts a broker")
    try:
        cluster = cluster_id(bootstrap, settings.kafka.security)
    except (BrokerError, OSError, ValueError) as error:
        return Diagnosis(
            name=name,
            status=Health.ERROR,
            message=str(error),
            remedy="start the cluster, or correct kafka.bootstrap and kafka.security",
        )
    return Diagnosis(name=name, status=Health.OK, message=f"the cluster {cluster} answers at {bootstrap}")


def check_topics(settings: Settings) -> Diagnosis:
    """No topic of Ratchet's keeps records longer than the settings say."""
    name = "retention"
    if not settings.kafka.bootstrap:
        return Diagnosis(name=name, status=Health.OK, message="the embedded broker keeps its log until it ends")
    try:
        longer = check_retention(settings.kafka, retention_of(settings.kafka))
    except (BrokerError, OSError, ValueError) as error:
        return Diagnosis(name=name, status=Health.WARNING, message=f"not looked at: {error}")
    if longer:
        remedy = "set retention.ms, segment.ms and cleanup.policy of the topic by kafka-configs.sh: docs/privacy.md"
        return Diagnosis(name=name, status=Health.WARNING, message="; ".join(longer), remedy=remedy)
    message = f"no topic of Ratchet's keeps records longer than {settings.kafka.raw_retention_h} h"
    return Diagnosis(name=name, status=Health.OK, message=message)


def check_authentication(settings: Settings) -> Diagnosis:
    """Every event has to be signed."""
    name, admission = "authentication", settings.admission
    if not admission.authenticates:
        message = f"events are not authenticated: {UNAUTHENTICATED}"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=AUTHENTICATE)
    return Diagnosis(name=name, status=Health.OK, message=f"{len(admission.principals)} principals have keys")


def check_base_model(settings: Settings) -> Diagnosis:
    """The base model is there, and its chat template writes replies that can be trained as they are served."""
    name = "base model"
    if find_spec("transformers") is None:
        message = "not looked at: the learner, which reads it, is not installed here"
        return Diagnosis(name=name, status=Health.OK, message=message)
    try:
        found = find_base(settings.model)
        refused = _refused_by_template(found)
    except (ConfigurationError, OSError) as error:
        remedy = "correct the setting `model`; docs/learning.md says which chat templates are refused"
        return Diagnosis(name=name, status=Health.ERROR, message=str(error), remedy=remedy)
    if refused is not None:
        message = f"episodes with a system message are left out of training: {refused}"
        remedy = "choose a base model whose chat template has a system role"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=f"{settings.model} is in {found}")


def _refused_by_template(folder: Path) -> str | None:
    """Return why chats with a system message cannot be trained, None where they can.

    Raises `ConfigurationError` when no reply can be trained as it is served.
    """
    if not (folder / "tokenizer_config.json").is_file():
        return None  # the embedded model, which is not converted yet
    # Transformers takes seconds to import.
    from learners.chat import ChatTokenizer

    tokenizer = ChatTokenizer(folder)
    tokenizer.check_replies()
    return tokenizer.refused_system_message()


def check_home(settings: Settings) -> Diagnosis:
    """The home folder can be written to, or made."""
    there = settings.home
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Diagnosis(
            name="home",
            status=Health.ERROR,
            message=f"nothing can be written to {there}: {error.strerror}",
            remedy="let the user that runs Ratchet write there, or set RATCHET_HOME to another folder",
        )
    return Diagnosis(name="home", status=Health.OK, message=f"{settings.home} can be written to")


def check_store(settings: Settings) -> Diagnosis:
    """The lake can be written to, where the store is one."""
    name, store = "store", settings.store
    if not store.is_lake:
        return Diagnosis(name=name, status=Health.OK, message=f"it is the file {store.path}")
    try:
        check_lake(store.lake)
    except (ConfigurationError, StoreError) as error:
        remedy = "correct [store.lake]; docs/scale.md says what a lake needs"
        return Diagnosis(name=name, status=Health.ERROR, message=str(error), remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=f"the lake in {store.lake.data} can be written to")


def check_sandboxes(settings: Settings) -> Diagnosis:
    """Sandboxes may read and reach what they need, and nothing that is secret."""
    name = "sandboxes"
    try:
        check_permissions(settings)
    except ConfigurationError as error:
        remedy = "correct the settings in [branching]"
        return Diagnosis(name=name, status=Health.ERROR, message=str(error), remedy=remedy)
    networked = sorted(name for name, allowed in settings.branching.permissions.items() if allowed.network)
    message = f"the network is allowed to {', '.join(networked)}" if networked else "none is allowed the network"
    return Diagnosis(name=name, status=Health.OK, message=message)


def check_gate(settings: Settings) -> Diagnosis:
    """Gates can be played: the domain's environment has the suite and the folds, and enough held-out tasks."""
    name = "domain"
    try:
        found = run_async(check_domain(settings))
    except ConfigurationError as error:
        return Diagnosis(name=name, status=Health.ERROR, message=str(error), remedy="correct the settings in [domain]")
    if found is None and is_judged(settings.domain):
        return Diagnosis(name=name, status=Health.OK, message=RECORDED)
    if found is None:
        return Diagnosis(name=name, status=Health.WARNING, message=UNSET, remedy=SET)
    played, kept = (len(found.held_out(settings.holdout, split)) for split in (Split.SELECTION, Split.CONFIRMATION))
    needed = settings.gate.min_tasks
    message = (
        f"{settings.domain.environment}, suite {found.suite}: {played + kept} of {len(found.tasks)} tasks are held "
        f"out, {played} for gates and {kept} for confirmation"
    )
    if found.generates:
        message += ", and it generates more"
    if played < needed:
        return Diagnosis(
            name=name,
            status=Health.WARNING,
            message=f"{message}; a gate needs {needed} of its own for a verdict",
            remedy="give the suite more tasks, or set gate.min_tasks or holdout.selection",
        )
    return Diagnosis(name=name, status=Health.OK, message=message)


def check_holdout(settings: Settings) -> Diagnosis:
    """Held-out tasks are left that no gate has played."""
    name = "held-out tasks"
    try:
        account = account_summary(Registry(settings.home))
    except RatchetError as error:
        return Diagnosis(name=name, status=Health.ERROR, message=str(error), remedy="restore the file from a backup")
    if not account.trials:
        return Diagnosis(name=name, status=Health.OK, message="no gate has played any")
    message = account_told(account)
    if (account.fresh or 0) < settings.gate.no_forgetting.min_tasks and "no_forgetting" in settings.gate.gates:
        return Diagnosis(
            name=name,
            status=Health.WARNING,
            message=message,
            remedy="add tasks to the suite, or let the environment generate them: until then base and anchor are "
            "compared with on tasks that earlier gates played",
        )
    return Diagnosis(name=name, status=Health.OK, message=message)


CHECKS: tuple[Callable[[Settings], Diagnosis], ...] = (
    check_authentication,
    check_base_model,
    check_home,
    check_store,
    check_sandboxes,
    check_gate,
    check_holdout,
    check_memory,
)


def _table(report: DoctorReport) -> Table:
    colours = {Health.OK: "green", Health.WARNING: "yellow", Health.ERROR: "red"}
    table = Table("check", "result", "found", "what to do")
    for check in report.checks:
        result = f"[{colours[check.status]}]{check.status.value}[/]"
        table.add_row(check.name, result, plain(check.message), plain(check.remedy))
    return table
