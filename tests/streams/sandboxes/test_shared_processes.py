"""The environments whose judged episodes share processes: by their author's word, never where tools run in them."""

from pathlib import Path

import pytest

from streams.environments.registry import needs_of
from streams.environments.toolbox.scaffold import write_toolbox

HELPDESK = Path(__file__).parents[3] / "examples" / "helpdesk"


def test_a_server_that_keeps_nothing_shares_processes_and_functions_do_not(tmp_path: Path) -> None:
    write_toolbox(tmp_path / "functions", "functions", "functions")
    assert needs_of("toolbox", {"folder": str(HELPDESK)}).shares_processes
    assert not needs_of("toolbox", {"folder": str(tmp_path / "functions")}).shares_processes


@pytest.mark.parametrize("name", ["textworld_express", "scienceworld"])
def test_what_is_costly_to_start_shares_processes(name: str) -> None:
    assert needs_of(name, {}).shares_processes
