"""What the operator lets the sandboxes of one environment reach."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from streams.environments.environment import Network
from streams.environments.openenv.settings import OpenEnvSettings
from streams.environments.registry import Needs
from streams.errors import SandboxError
from streams.sandboxes.isolation.settings import Isolation
from streams.sandboxes.permissions import Permissions, first_refusal, network_refusal
from streams.sandboxes.pool import SandboxPool
from tests.builders.toolboxes import box
from tests.streams.sandboxes.isolated import TIERS, tier_called

TOOLBOX = """name = "reader"
functions = "tools.py"
check = "domain:check"
"""
TOOLS = '''
def read(path: str) -> str:
    """Read a file."""
    with open(path) as file:
        return file.read()


def write(path: str) -> str:
    """Write a file."""
    with open(path, "w") as file:
        file.write("poisoned")
    return "written"
'''
CHECK = "def check(task, messages):\n    return {'success': False}\n"


def refusal(needs: Needs, *allowed: str) -> str:
    return network_refusal("openenv", needs, Permissions(network=allowed))


def test_an_environment_gets_the_network_only_if_the_operator_lists_its_servers() -> None:
    needs = Needs(Network.REMOTE, (), ("games.example:8000",))
    assert "games.example:8000 is not allowed" in refusal(needs)
    assert 'network = ["games.example:8000"] in [branching.permissions.openenv]' in refusal(needs)
    assert "games.example:8000 is not allowed" in refusal(needs, "games.example:8001")
    assert not refusal(needs, "other.example:1", "games.example:8000")
    assert "no server is allowed" in refusal(Needs(Network.REMOTE, ()))
    assert not refusal(Needs(Network.REMOTE, ()), "games.example:8000")
    assert not any(refusal(Needs(network, ())) for network in (Network.NONE, Network.LOOPBACK))


def test_an_openenv_server_is_known_by_its_url() -> None:
    assert OpenEnvSettings(url="ws://127.0.0.1:8000/ws").hosts() == ("127.0.0.1:8000",)
    assert OpenEnvSettings(url="wss://[::1]/ws").hosts() == ("[::1]:443",)


@pytest.mark.parametrize("wrong", [{"network": ["games.example"]}, {"network": ["*"]}, {"readable": ["data"]}])
def test_a_server_has_a_port_and_a_path_is_a_whole_one(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(ValidationError):
        Permissions.model_validate(wrong)


def test_what_is_secret_is_read_by_no_sandbox(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    (home / "keys").mkdir(parents=True)
    data.mkdir()
    (data / "link").symlink_to(home)
    private = {"the home": home}
    assert not first_refusal([data], private)
    assert "does not exist" in first_refusal([data, tmp_path / "nowhere"], private)
    assert "holds the home" in first_refusal([tmp_path], private)
    assert "holds the home" in first_refusal([home], private)
    assert "holds the home" in first_refusal([data / "link"], private)
    assert "lies in the home" in first_refusal([home / "keys"], private)
    assert not first_refusal([home / "keys"], private, within=False)


@pytest.mark.parametrize("isolation", TIERS)
async def test_a_path_that_one_environment_may_read_is_read_and_not_written(
    tmp_path_factory: pytest.TempPathFactory, isolation: Isolation
) -> None:
    tier_called(isolation)
    # Not the test's own folder, which only its owner may enter.
    root = tmp_path_factory.mktemp("permitted")
    copy = root / "copy"
    copy.mkdir()
    (copy / "shop.txt").write_text("a copy")
    (copy / "shop.txt").chmod(0o666)
    folder = box(root / "reader", TOOLBOX, tools__py=TOOLS, domain__py=CHECK)
    told = {"folder": str(folder)}
    task, path = Task(environment="toolbox", task_id="one"), f'{{"path": "{copy / "shop.txt"}"}}'

    async def said(permissions: Permissions, tool: str) -> str:
        pool = SandboxPool("toolbox", isolation=isolation, settings=told, permissions=permissions)
        async with pool, pool.session() as session:
            await session.reset(task)
            return (await session.step(assistant(None, call(tool, path, "c1")))).text

    allowed = Permissions(readable=(copy,))
    assert await said(allowed, "read") == "a copy"
    assert "error" in await said(allowed, "write")
    assert "error" in await said(Permissions(), "read")
    assert (copy / "shop.txt").read_text() == "a copy"


@pytest.mark.usefixtures("faulty_environments")
async def test_without_permission_no_sandbox_with_a_network_is_started() -> None:
    with pytest.raises(SandboxError, match="needs the network, and no server is allowed"):
        async with SandboxPool("faulty_unforkable") as pool, pool.session():
            pass
