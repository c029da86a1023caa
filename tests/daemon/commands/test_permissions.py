"""The paths and the network of sandboxes, as the commands check them that read the configuration."""

from pathlib import Path

import pytest

from daemon.commands.permissions import check_permissions
from daemon.config import Settings
from ratchet_client.errors import ConfigurationError
from streams.branching.settings import BranchingSettings
from streams.sandboxes.permissions import Permissions

SERVER = {"openenv": {"url": "ws://games.example:8000/ws"}}


def settings(tmp_path: Path, **branching: object) -> Settings:
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "tokens.json").touch()
    return Settings(home=tmp_path / "home", branching=BranchingSettings.model_validate(branching)).settled()


def test_a_copy_that_lies_beside_the_home_may_be_read_and_a_listed_server_reached(tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.touch()
    allowed = Permissions(network=("games.example:8000",), readable=(copy,))
    check_permissions(settings(tmp_path, readable=[copy], permissions={"openenv": allowed}, environments=SERVER))
    check_permissions(settings(tmp_path))


@pytest.mark.parametrize("key", ["readable", "permissions"])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere", "does not exist"),
        ("home", "holds Ratchet's home folder"),
        ("", "holds Ratchet's home folder"),
        ("home/tokens.json", "lies in Ratchet's home folder"),
    ],
)
def test_a_path_that_is_missing_or_shows_secrets_is_refused(tmp_path: Path, key: str, place: str, why: str) -> None:
    path = tmp_path / place
    given = {"readable": [path]} if key == "readable" else {"permissions": {"toolbox": {"readable": [path]}}}
    with pytest.raises(ConfigurationError, match=rf"branching\.{key}.* {why}"):
        check_permissions(settings(tmp_path, **given))


def test_the_folder_of_the_user_and_a_toolbox_around_the_home_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setenv("HOME", str(user))
    with pytest.raises(ConfigurationError, match="the home folder of the user"):
        check_permissions(settings(tmp_path, readable=[user]))
    with pytest.raises(ConfigurationError, match=r"environments\.toolbox.*holds Ratchet's home"):
        check_permissions(settings(tmp_path, environments={"toolbox": {"folder": str(tmp_path)}}))


def test_a_server_that_is_not_listed_and_a_name_that_is_unknown_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"games\.example:8000 is not allowed"):
        check_permissions(settings(tmp_path, environments=SERVER))
    other = {"openenv": {"network": ["games.example:1"]}}
    with pytest.raises(ConfigurationError, match=r"games\.example:8000 is not allowed"):
        check_permissions(settings(tmp_path, environments=SERVER, permissions=other))
    with pytest.raises(ConfigurationError, match=r"\[branching\.permissions\.nosuch\].*not installed"):
        check_permissions(settings(tmp_path, permissions={"nosuch": {}}))
