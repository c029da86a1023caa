"""The suite lets a sound environment pass and finds every broken promise, through processes and entry points."""

import random
from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from streams.runtime.processes import free_port
from streams.sandboxes.conformance import Suite
from streams.sandboxes.permissions import Permissions
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.promises import Check
from tests.streams.environments.openenv.openenv_servers import reference, stopped

SOUND = {"faulty_sound": 3, "faulty_dark": 3, "faulty_orderdesk": 2}
"""Each with the number of its ways to restore a state. The last is the example of an environment with tools."""

# Of the tests of branching, which name the tasks themselves, and of practice, where luck decides.
UNCHECKED = ("faulty_mailbox", "faulty_post", "faulty_lottery", "faulty_costly")
# What each faulty environment breaks, by the beginning of the promise's name.
BROKEN = {
    "faulty_forgetful": "states come back exactly by snapshot",
    "faulty_diverging": "the same actions lead to the same states",
    "faulty_leaking": "sessions share no state",
    "faulty_blurred": "fingerprints change with the state",
    "faulty_counting": "fingerprints change with the state",
    "faulty_harmful": "capabilities agree with what is offered",
    "faulty_unforkable": "capabilities agree with what is offered",
    "faulty_careless": "refusals leave the session usable",
    "faulty_raising": "what is not an action is answered",
    "faulty_losing": "demonstrations succeed",
    "faulty_open": "refusals leave the session usable",
    **dict.fromkeys(
        [
            *("faulty_mute", "faulty_repetitive", "faulty_mislabelling", "faulty_chatty", "faulty_unasked"),
            "faulty_silent",
        ],
        "each call is answered once, by its id",
    ),
    **dict.fromkeys(
        [
            *("faulty_dialect", "faulty_mistyped", "faulty_bare", "faulty_spaced", "faulty_doubled"),
            *("faulty_dangling", "faulty_curt"),
        ],
        "tools are defined as models are given them",
    ),
    "faulty_ventriloquist": "tasks can be begun and played",
    "faulty_startled": "a call that cannot be executed is answered",
    "faulty_feigning": "a call that cannot be executed is answered",
    "faulty_anonymous": "demonstrations succeed",
}


async def checked(
    name: str,
    game: str = "",
    tasks: int = 4,
    restores: int = 30,
    settings: Mapping[str, JsonValue] | None = None,
    server: str = "127.0.0.1:9",
) -> list[Check]:
    allowed = Permissions(network=(server,))
    async with SandboxPool(name, size=2, step_timeout_s=60, settings=settings, permissions=allowed) as pool:
        description = await pool.describe()
        listed = await pool.tasks(game or description.games[0], "train")
        suite = Suite(pool, description, listed[:tasks], restores, random.Random(0))
        return await suite.run(lambda name, done, total: None)


@pytest.mark.parametrize("name", SOUND)
async def test_a_sound_environment_keeps_every_promise(name: str, faulty_environments: tuple[str, ...]) -> None:
    checks = await checked(name)
    assert [check for check in checks if check.kept is False] == []
    assert sum("30 states brought back, 0 mismatches" in check.seen for check in checks) == SOUND[name]


def test_every_faulty_environment_is_tried(faulty_environments: tuple[str, ...]) -> None:
    assert {*BROKEN, *SOUND, *UNCHECKED} == set(faulty_environments)


@pytest.mark.parametrize(("name", "promise"), BROKEN.items())
async def test_a_broken_promise_is_found(name: str, promise: str, faulty_environments: tuple[str, ...]) -> None:
    broken = [check for check in await checked(name, restores=5) if check.kept is False]
    assert promise in [check.name for check in broken]
    assert all(check.tried and check.expected and check.seen for check in broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("textworld_express", "twc"),
        ("bfcl", "multi_turn_base"),
        pytest.param("textworld", "", marks=pytest.mark.nightly),
        pytest.param("scienceworld", "", marks=pytest.mark.nightly),
    ],
)
async def test_every_environment_of_ours_keeps_every_promise(name: str, game: str) -> None:
    checks = await checked(name, game, tasks=2, restores=10)
    assert [check for check in checks if check.kept is False] == []


@pytest.mark.slow
async def test_an_environment_on_a_server_keeps_every_promise() -> None:
    port = free_port()
    server = reference(port)
    try:
        settings: dict[str, JsonValue] = {"url": f"ws://127.0.0.1:{port}/ws"}
        checks = await checked("openenv", "twc", 2, 10, settings, f"127.0.0.1:{port}")
    finally:
        stopped(server)
    assert [check for check in checks if check.kept is False] == []
