"""The command line: `ratchet demo | run | status | history | why | approve | reject | rollback | restore | …`.

Each command exits 0 on success, 2 on wrong usage, 1 otherwise with one line on stderr that says what to do; `cycle` has
two more. It is a function, or a group of them, in a file of `daemon/commands/` that is imported when it is called.
"""

import os
import sys

import typer

from daemon.commands.lazy_group import LazyCommand, lazy_group
from daemon.commands.logs import log_as
from daemon.printable import printable
from ratchet_client.errors import RatchetError
from streams.runtime.logs import LogSettings, tell_end
from streams.runtime.private_home import keep_files_private

COMMANDS = {
    "demo": LazyCommand(
        "daemon.commands.demo:demo",
        "Teach a real language model on a real environment, end to end, on embedded defaults.",
    ),
    "run": LazyCommand(
        "daemon.commands.run:run",
        "Run Ratchet, or some of its roles: one in this process, several in a process each, restarted if they die.",
    ),
    "cycle": LazyCommand(
        "daemon.commands.cycle:cycle",
        "Run one cycle of the learn role, or finish the one that was broken off, and end. Nothing where none is due.",
    ),
    "status": LazyCommand(
        "daemon.commands.status:status",
        "Show what serves, which candidates wait for a person, what is stored, and how the last cycles ended.",
    ),
    "history": LazyCommand(
        "daemon.commands.history:history",
        "The audit log: who did what to which adapter, when and why. Read from its file, so nothing need be running.",
    ),
    "rollback": LazyCommand(
        "daemon.commands.rollback:rollback",
        "Let what served before serve again. What is taken back does not return by itself: see `ratchet restore`.",
    ),
    "drill": LazyCommand(
        "daemon.commands.drill:drill", "Try, without any effect on agents, whether what an emergency needs would work."
    ),
    "restore": LazyCommand(
        "daemon.commands.undoing:restore",
        "Undo a rollback: let the adapter serve again that was taken back. It is loaded and attested; "
        "Ratchet must run.",
    ),
    "hold": LazyCommand(
        "daemon.commands.undoing:hold",
        "Stop automatic promotion: what passes its gates waits for a person. What serves goes on. Works offline.",
    ),
    "resume": LazyCommand(
        "daemon.commands.undoing:resume",
        "Let promotion be automatic again. What waits for a person meanwhile goes on waiting. Works offline.",
    ),
    "verify": LazyCommand(
        "daemon.commands.verify:verify",
        "Check the audit log, refs, adapters and their signatures, gate reports, snapshots and keys. Works offline.",
    ),
    "backup": LazyCommand("daemon.commands.backup:backup", "Copies of all that Ratchet keeps, and homes of them."),
    "upgrade": LazyCommand(
        "daemon.commands.upgrade:upgrade",
        "Bring the home of an earlier version to this one, with a backup of it before. Ratchet must not run.",
    ),
    "doctor": LazyCommand(
        "daemon.commands.doctor:doctor",
        "Check that Ratchet can run here and, where it runs, that what it needs arrives.",
    ),
    "why": LazyCommand(
        "daemon.commands.why:why",
        "Show what an adapter was trained on, whose data that was, what its gates said, and who decided. "
        "Works offline.",
    ),
    "approve": LazyCommand(
        "daemon.commands.approval:approve",
        "Let a candidate serve that waits for a person. It is loaded and attested like any other; Ratchet must run.",
    ),
    "reject": LazyCommand("daemon.commands.approval:reject", "End a candidate that waits for a person. Works offline."),
    "token": LazyCommand("daemon.commands.token:token", "Who may ask Ratchet over HTTP, and what."),
    "forget": LazyCommand(
        "daemon.commands.forget:forget",
        "Keep a principal out of everything that is trained from now on, and mark the adapters that saw its data.",
    ),
    "transitions": LazyCommand(
        "daemon.commands.export:transitions",
        "List the newest transitions as of a sequence. The same sequence gives the same, but for revoked consent.",
    ),
    "export": LazyCommand(
        "daemon.commands.export:export",
        "Write what the store held as of a sequence: transitions as Parquet, trusted episodes as conversations.",
    ),
    "import": LazyCommand(
        "daemon.commands.importing:import_files",
        "Publish conversations from files as episodes. The same file may be imported again: nothing is stored twice.",
    ),
    "judge": LazyCommand(
        "daemon.commands.judge:judge",
        "Ask a model for its opinion of episodes. Its outcomes alone trust nothing, unless `trust.model_judges` says "
        "so.",
    ),
    "study": LazyCommand(
        "daemon.commands.study:study",
        "Train every arm of a plan for every domain and seed, play held-out tasks, and compare with the baseline.",
    ),
    "check-config": LazyCommand(
        "daemon.commands.check_config:check_config",
        "Read the configuration as `run` would, print it, and check that lake, sandboxes and gates can do their work.",
    ),
    "anchor": LazyCommand(
        "daemon.commands.anchor:anchor",
        "The older adapter that gates hold every candidate against.",
    ),
    "gate": LazyCommand("daemon.commands.gate:gate", "Trials of candidates: what was played, and the verdicts."),
    "episodes": LazyCommand("daemon.commands.episodes:episodes", "Stored episodes: what is learned from, and why not."),
    "dead-letters": LazyCommand(
        "daemon.commands.dead_letters:dead_letters",
        "What was refused, and what to do with it.",
    ),
    "environment": LazyCommand("daemon.commands.environment:environment", "Where alternatives run."),
}

app = typer.Typer(
    name="ratchet",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def ratchet() -> None:
    """A continual-learning sidecar for production LLM agents."""


def main() -> None:
    # Libraries draw progress bars even into files; what takes long is told by us. TQDM_DISABLE=0 shows theirs.
    os.environ.setdefault("TQDM_DISABLE", "1")
    keep_files_private()
    log_as(LogSettings())
    try:
        app()
    except RatchetError as error:
        tell_end(str(error), f"ratchet: {printable(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("ratchet: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
