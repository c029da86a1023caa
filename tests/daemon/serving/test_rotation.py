"""Which of several inference servers takes the next request."""

import asyncio
from collections import Counter

from daemon.serving.backoff import Backoff
from daemon.serving.replicas import Replicas
from tests.builders.rotations import in_rotation

ADDRESSES = tuple(f"http://engine-{number}:8000" for number in range(3))
KEYS = [f"conversation-{number}" for number in range(300)]


def choices(replicas: Replicas) -> dict[str, str]:
    """The address that each key's requests go to."""
    chosen = {key: replicas.choose("base", key) for key in KEYS}
    return {key: replica.url for key, replica in chosen.items() if replica is not None}


def test_keys_are_spread_over_all_and_a_server_that_goes_moves_only_its_own() -> None:
    replicas = in_rotation(*ADDRESSES)
    before = choices(replicas)
    assert all(count > len(KEYS) / 6 for count in Counter(before.values()).values())
    assert set(before.values()) == set(ADDRESSES)
    replicas.all[1].be_away("it is gone")
    after = choices(replicas)
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == ADDRESSES[1]}
    replicas.all[1].away = ""
    assert choices(replicas) == before


async def test_the_least_busy_one_is_next_where_there_is_no_key_or_the_usual_one_has_far_more_to_do() -> None:
    replicas = in_rotation(*ADDRESSES[:2])
    usual = replicas.choose("base", "chat")
    assert usual is not None
    other = next(replica for replica in replicas.all if replica is not usual)
    with usual.asking(asyncio.timeout(None)):
        assert replicas.choose("base") is other
        assert replicas.choose("base", "chat") is usual
    waiting = [usual.asking(asyncio.timeout(None)) for _ in range(9)]
    for each in waiting:
        each.__enter__()
    assert replicas.choose("base", "chat") is other
    assert replicas.choose("base", "chat", pinned=True) is usual


def test_only_servers_that_hold_the_adapter_are_asked_and_each_by_its_own_name() -> None:
    replicas = in_rotation(*ADDRESSES[:2])
    first, second = replicas.all
    assert replicas.choose("ratchet-1") is None
    second.hold("ratchet-1", "ratchet-5", 0.0)
    assert replicas.choose("ratchet-1") is second
    assert (first.name_there("ratchet-1"), second.name_there("ratchet-1")) == ("ratchet-1", "ratchet-5")
    assert replicas.choose("ratchet-1", without=[second]) is None
    replicas.lost(second, "ratchet-1")
    assert replicas.choose("ratchet-1") is None
    assert replicas.changed.is_set()


def test_pauses_grow_to_a_limit_and_begin_again_after_a_success() -> None:
    backoff, pauses = Backoff(2.0, longest_s=10.0), list[float]()
    assert backoff.due
    for _ in range(4):
        backoff.failed()
        pauses.append(backoff.pause_s)
    assert (pauses, backoff.due) == ([2.0, 4.0, 8.0, 10.0], False)
    backoff.reset()
    assert backoff.due
    backoff.failed()
    assert backoff.pause_s == 2.0
