"""`python -m daemon.inference --model FOLDER --port N`: the embedded inference server. The supervisor starts it."""

import argparse
import os
import signal
import sys

from pydantic import ValidationError

from daemon.inference.settings import InferenceSettings
from ratchet_client.errors import RatchetError
from streams.runtime.computing import COMPUTE_VARIABLES
from streams.runtime.logs import LogSettings, log_to_stderr, tell_end
from streams.runtime.private_home import keep_files_private
from streams.runtime.processes import die_with_parent


def main() -> int:
    """Serve until a signal; the exit status is 0 then, 2 for wrong usage, 1 if the server cannot start."""
    die_with_parent()
    keep_files_private()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        settings = _settings()
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        print(f"--{option}: {first['msg']}", file=sys.stderr)
        return 2
    log_to_stderr(LogSettings(format=settings.log_format, level=settings.log_level))
    # Torch reads them when it is imported, and so it is not imported before.
    os.environ.update(COMPUTE_VARIABLES | os.environ)
    from transformers.utils import logging as transformers_logging

    from daemon.inference.server import serve

    transformers_logging.disable_progress_bar()
    try:
        serve(settings)
    except RatchetError as error:
        line = " ".join(str(error).split())
        tell_end(line, line)
        return 1
    return 0


def _settings() -> InferenceSettings:
    parser = argparse.ArgumentParser(prog="python -m daemon.inference", description=__doc__)
    for name, field in InferenceSettings.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=field.description,
        )
    return InferenceSettings.model_validate(vars(parser.parse_args()))


def _end(signum: int, frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
