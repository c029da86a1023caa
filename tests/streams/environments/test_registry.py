"""Environments that are found by their entry points."""

from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from streams.environments.registry import load_environment, open_environment, registered_environments


def test_a_package_that_cannot_be_imported_is_named_with_its_reason_and_what_a_sandbox_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "desk_package.py").write_text("import their_own_code\n")
    installed = tmp_path / "desk_package-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: desk-package\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[ratchet.environments]\ndesk = desk_package:Desk\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "desk" in registered_environments()
    with pytest.raises(ConfigurationError, match=r"'desk' .*desk_package:Desk: .*their_own_code.*branching\.readable"):
        load_environment("desk")


def test_a_wrong_setting_of_an_environment_is_told_in_plain_words() -> None:
    with pytest.raises(ConfigurationError, match=r"are wrong: folder: it must be set\. Correct them"):
        open_environment("toolbox", {})
    with pytest.raises(ConfigurationError, match=r"unknown setting folders; did you mean folder\?"):
        open_environment("toolbox", {"folder": "examples/helpdesk", "folders": "x"})
