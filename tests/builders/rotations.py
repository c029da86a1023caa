"""Inference servers in the rotation of a gateway that nothing reconciles."""

from daemon.registry.schemas import BASE
from daemon.serving.replicas import Replicas
from streams.policy.client import PolicyClient


def in_rotation(*urls: str, holding: tuple[str, ...] = (BASE,)) -> Replicas:
    """The servers at `urls`, each of which has what is called `holding`."""
    replicas = Replicas([PolicyClient(url) for url in urls])
    for replica in replicas.all:
        replica.away = ""
        for name in holding:
            replica.hold(name, name, 0.0)
    return replicas
