"""Looks at one inference server: whether it is alive, fit to serve, and what it has loaded."""

import re

from daemon.registry.schemas import BASE
from daemon.serving.replicas import Replica
from streams.errors import PolicyError
from streams.runtime.http_client import found_nobody, found_silence

_PATIENCE_S = 10.0
# A busy server may be silent once.
_MOST_SILENT = 2
# The last version of vLLM whose requests in flight went on with another adapter after one was loaded (its issue 47724).
_MIXING = (0, 24)
_VLLM = "vllm"


async def look(replica: Replica) -> bool:
    """See what a server has, and whether it can be used; true when it has just come back, or has restarted.

    It is out of the rotation at once where it takes no connection, and its requests in flight are ended, for a server
    that is going down may leave them waiting; where it is silent, after the second time; where it cannot serve, with
    the reason.
    """
    was_away = bool(replica.away)
    try:
        await replica.policy.check_health(_PATIENCE_S)
        models = await replica.policy.models(_PATIENCE_S)
        reason = _unfit(replica, {model.name for model in models})
        if not reason and was_away:
            version = await replica.policy.version(_PATIENCE_S) if models[0].owner == _VLLM else ""
            reason = too_old(version)
    except PolicyError as error:
        _miss(replica, error)
        return False
    replica.silent = 0
    replica.models = frozenset(model.name for model in models)
    if reason:
        replica.be_away(reason)
        return False
    kept = {served: name for served, name in replica.held.items() if name in replica.models and served != BASE}
    has_lost = len(kept) < len(replica.held.keys() - {BASE})
    for served in replica.held.keys() - kept.keys():
        replica.drop(served)
    replica.hold(BASE, BASE, 0.0)
    replica.away = ""
    return was_away or has_lost


def too_old(version: str) -> str:
    """Return why a vLLM of that version cannot be used; empty where it can, or its version cannot be read.

    >>> too_old("0.32.0"), too_old("0.24.1")[:28], too_old("1.0"), too_old("dev")
    ('', 'vLLM 0.24.1 gives requests i', '', '')
    """
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) > _MIXING:
        return ""
    return f"vLLM {version} gives requests in flight another adapter when one is loaded; use 0.25 or later"


def _unfit(replica: Replica, names: set[str]) -> str:
    if BASE in names:
        return ""
    wanted, there = replica.policy.base_name, ", ".join(sorted(names)) or "none"
    return (
        f"it has no model {wanted!r}, there are: {there}; set engine.base_name to the base model's name there, or "
        f"start it with --served-model-name {wanted}"
    )


def _miss(replica: Replica, error: PolicyError) -> None:
    if found_silence(error):
        replica.silent += 1
        if replica.silent < _MOST_SILENT:
            return
    replica.be_away(str(error))
    if found_nobody(error):
        replica.cut()
