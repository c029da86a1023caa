"""The choice of the best tier of isolation that works on this machine. Called when the pool starts."""

import subprocess
import sys
from collections.abc import Callable

import structlog

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.sandboxes.isolation.bubblewrap import Bubblewrap
from streams.sandboxes.isolation.home import make_home, remove_home
from streams.sandboxes.isolation.landlock import Landlock, Unconfined
from streams.sandboxes.isolation.launching import Confinement, Tier
from streams.sandboxes.isolation.settings import Isolation

log = structlog.get_logger()

_PROBE_TIMEOUT_S = 30.0
# Two ends of one connection inside, and no peer outside: what a Java virtual machine needs, and no more.
_PROBE = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    server.accept()[0].close()
try:
    open(sys.argv[1]).close()
except OSError:
    print("confined")
"""

_TIERS: dict[str, Callable[[], Tier]] = {"bubblewrap": Bubblewrap, "landlock": Landlock}


def choose(isolation: Isolation) -> Tier:
    """The tier that `isolation` names, or with `auto` the first that works. Each is tried by running a program in it.

    Raises `ConfigurationError` when none does. Sandboxes run without isolation only when that is asked for by name.
    """
    if isolation == "none":
        log.warning(
            "sandboxes are not isolated",
            remedy="use it only for environments and policies that you trust; see docs/isolation.md",
        )
        return Unconfined()
    failures: dict[str, str] = {}
    for name in _TIERS if isolation == "auto" else (isolation,):
        try:
            tier = _TIERS[name]()
            _probe(tier)
        except ConfigurationError as failure:
            failures[name] = str(failure)
        else:
            log.info("sandboxes are isolated", tier=name, unusable=failures)
            return tier
    reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    raise ConfigurationError(
        f"sandboxes cannot be isolated on this machine. {reasons}. docs/isolation.md says what a tier needs; "
        'isolation = "none" runs them without isolation, for environments and policies that you trust.'
    )


def _probe(tier: Tier) -> None:
    folder = make_home()
    secret = folder / "secret"
    secret.touch()
    secret.chmod(0o644)  # whatever the umask: the tier must hide it, and not its mode
    command = (sys.executable, "-I", "-S", "-c", _PROBE, str(secret))
    try:
        with tier.launch(command, Confinement(folder, Network.LOOPBACK)) as launch:
            answer = subprocess.run(
                launch.command,
                env=launch.variables,
                pass_fds=launch.fds,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_TIMEOUT_S,
                text=True,
                start_new_session=True,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"a program could not be run in it: {error}") from error
    finally:
        remove_home(folder)
    if answer.stdout.strip() != "confined":
        said = answer.stderr.strip()[-300:] or f"status {answer.returncode}"
        raise ConfigurationError(f"a program that was run in it says: {said}")
