"""`ratchet check-config`: the configuration as `ratchet run` would read it."""

from rich.console import Console

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.commands.permissions import check_permissions
from daemon.config import Settings
from daemon.console import print_json
from daemon.learning.domain import check_domain
from streams.store.ducklake import check_lake


def check_config(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read the configuration as `run` would, print it, and check that lake, sandboxes and gates can do their work."""
    settings = Settings.load(config)
    if as_json:
        print_json(settings.model_dump_json())
    else:
        Console().print_json(settings.model_dump_json())
    if settings.store.is_lake:
        check_lake(settings.store.lake)
    check_permissions(settings)
    run_async(check_domain(settings))
