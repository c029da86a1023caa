"""`ratchet backup create | verify | restore`: a copy of all that Ratchet keeps, and a home made of it."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.backups.creating import Source, create_backup
from daemon.backups.manifest import HOME, STORE_FILE, BackupManifest, check_backup
from daemon.backups.restoring import restore_backup
from daemon.commands.options import ConfigOption, JsonOption, find_kafka, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import REVEAL
from streams.errors import StoreError
from streams.store.arrival import has_arrived
from streams.store.client import StoreClient

backup = typer.Typer(name="backup", no_args_is_help=True, help="Copies of all that Ratchet keeps, and homes of them.")

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")]


def source_of(settings: Settings, config: Path | None, *, as_files: bool = False) -> Source:
    """The home of the settings that were read from `config`, as backups and upgrades take it."""
    return Source(
        home=settings.home,
        store=settings.store,
        assembly=settings.assembly.path,
        store_url=settings.store_url,
        settings=Settings.read(config).model_dump_json(indent=1, exclude_unset=True, context=REVEAL) + "\n",
        as_files=as_files,
    )


@backup.command()
def create(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder. It is as secret as the home.")],
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Take what is stored; do not wait for what the log holds beside it.")
    ] = False,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait until the store has all of the log.")] = 60.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store, the registry, adapters, snapshots, keys and settings, while Ratchet runs or while it does not.

    What was acknowledged before it began is in it. The embedded broker's log, logs and the base model are not.
    """
    settings = Settings.load(config)
    narrator = Narrator()
    source = source_of(settings, config)

    async def take() -> BackupManifest:
        if not as_is and await _runs(settings):
            async with StoreClient(settings.store_url) as store:
                narrator.say("waiting until the store has what the log holds")
                await has_arrived(await find_kafka(settings), store, wait_s)
        return await create_backup(source, folder, narrator.say)

    _print(folder, run_async(take()), as_json)


@backup.command()
def verify(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Check every file of a backup against its manifest. Works offline."""
    _print(folder, check_backup(folder), as_json)


@backup.command()
def restore(
    folder: FolderArgument,
    home: Annotated[Path, typer.Option("--home", help="A new folder, or one that is empty: the home that is made.")],
    into_lake: Annotated[
        bool, typer.Option("--into-lake", help="Put the store into the new lake of [store.lake], and not into a file.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a home of a backup. Nothing is restored over what is there; nothing need be running."""
    lake = Settings.load(config).store.lake if into_lake else None
    if lake is not None and not (lake.catalog and lake.data):
        raise ConfigurationError("--into-lake needs store.lake.catalog and store.lake.data: set both")
    restored = restore_backup(folder, home, Narrator().say, lake)
    if as_json:
        print_json(restored.model_dump_json())
    else:
        typer.echo(f"{restored.home} holds the backup of {restored.backup.created_at:%Y-%m-%d %H:%M} UTC")
        if lake is not None:
            typer.echo(f'its store is in the lake in {lake.data}: run it with store.backend = "ducklake"')
        typer.echo(f"what had been set then is in {folder / 'settings.json'}; run with RATCHET_HOME={restored.home}")
        for name in restored.findings:
            typer.echo(f"{name} is not what it was: see `ratchet verify`")
    if restored.findings:
        raise typer.Exit(1)


async def _runs(settings: Settings) -> bool:
    async with StoreClient(settings.store_url) as store:
        try:
            await store.status()
        except StoreError:
            return False
    return True


def _print(folder: Path, manifest: BackupManifest, as_json: bool) -> None:
    if as_json:
        print_json(manifest.model_dump_json())
        return
    size = sum(file.size for file in manifest.files.values())
    if manifest.store is not None:
        as_of = f"the store as of sequence {manifest.store.as_of}"
    else:
        as_of = "the store's file as it was" if f"{HOME}/{STORE_FILE}" in manifest.files else "no store"
    typer.echo(
        f"{folder}: {len(manifest.files)} files, {size} bytes, {as_of}, {manifest.created_at:%Y-%m-%d %H:%M} UTC"
    )
    for name, why in sorted(manifest.left_out.items()):
        typer.echo(f"left out: {name} ({why})")
    for name in manifest.findings:
        typer.echo(f"{name} was not what it should be in the home: see `ratchet verify`")
