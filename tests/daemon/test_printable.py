"""What others wrote, as it is shown on a terminal."""

import json
import sys
from io import StringIO

import pytest
import structlog
from rich.console import Console

from daemon.commands.episodes import ShownEpisode, Uses, _show_tables
from daemon.commands.logs import log_as
from daemon.console import Narrator, print_json
from daemon.printable import printable
from streams.runtime.logs import LogSettings
from streams.store.episode_state import EpisodeState
from streams.store.episodes import EpisodeReport, EpisodeSummary

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x85\x7f\x00\r\b\u202eevil"
COMMANDS = {each for each in map(chr, [*range(32), *range(127, 160), 0x202E]) if each not in "\n\t"}


def commands_in(text: str) -> set[str]:
    return COMMANDS & set(text)


def test_a_text_keeps_its_lines_and_loses_what_commands_a_terminal() -> None:
    assert not commands_in(printable(HOSTILE))
    assert printable("één\tline\nand another") == "één\tline\nand another"


def test_json_on_a_terminal_is_harmless_and_the_same_data(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(json.dumps({"said": HOSTILE}, ensure_ascii=False))
    out = capsys.readouterr().out
    assert not commands_in(out)
    assert json.loads(out) == {"said": HOSTILE}


def test_an_episode_is_shown_without_what_its_texts_command() -> None:
    summary = EpisodeSummary.model_construct(
        episode_id=HOSTILE, state=EpisodeState.TRUSTED, reason=HOSTILE, task_id=HOSTILE, environment=HOSTILE,
        principal=HOSTILE, steps=1, outcomes=0, touched=1, last_at=None,
    )  # fmt: skip
    report = EpisodeReport.model_construct(
        summary=summary, steps=(), outcomes=(), branches=(), decisions=(), recovery=None, rewritten_at=None
    )
    file = StringIO()
    console = Console(file=file, no_color=True, width=200)
    for table in _show_tables(ShownEpisode.model_construct(episode=report, uses=Uses())):
        console.print(table)
    assert "evil" in file.getvalue()
    assert not commands_in(file.getvalue())


def test_logs_and_progress_are_harmless_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = structlog.get_config()
    try:
        log_as(LogSettings())
        log_as(LogSettings())  # as a command does that is called by another
        structlog.get_logger().warning("state dropped", reason=HOSTILE, episode=HOSTILE)
    finally:
        structlog.configure(**before)
    with Narrator() as narrator:
        narrator.say(HOSTILE)
        narrator.advance(HOSTILE, 1, 1, HOSTILE)
    # The renderer's own colours are escape sequences of the one kind that only colours.
    shown = capsys.readouterr().err
    assert "evil" in shown
    assert not commands_in(shown) - ({"\x1b"} if sys.stderr.isatty() or "\x1b[0m" in shown else set())
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
