"""The start of roles by their settings."""

from pathlib import Path

import pytest

from daemon import roles
from daemon.config import Settings
from streams.branching import role as branch_role
from streams.redaction.key import KEY_FILE
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.store.settings import StoreSettings


async def test_the_branch_role_redacts_as_the_record_role_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Redactor] = []

    async def serve(kafka: object, branching: object, stop: object, redactor: Redactor) -> None:
        given.append(redactor)

    monkeypatch.setattr(branch_role, "serve", serve)
    redaction = RedactionSettings(keep=frozenset({"support@example.com"}))
    store = StoreSettings(path=tmp_path / "data" / "store.duckdb")
    settings = Settings(home=tmp_path, redaction=redaction, store=store)
    await roles.branch(settings.settled())
    stored_with = Redactor(redaction, (tmp_path / "data" / KEY_FILE).read_bytes())
    said = "support@example.com forwards to bob@example.com"
    assert given[0].redact_text(said, "episode-1") == stored_with.redact_text(said, "episode-1")
    assert given[0].redact_text(said, "episode-1")[0].startswith("support@example.com forwards to <EMAIL_")
