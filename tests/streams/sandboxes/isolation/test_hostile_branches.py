"""Five hundred hostile branches in a row, and what an ordinary user's pool makes of all that root's stops."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import pytest

from ratchet_client.messages import assistant, call
from streams.branching.restored_episode import restored
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.toolboxes import box
from tests.streams.sandboxes.isolated import TIERS, tier_called
from tests.streams.sandboxes.test_lying_tools import CHECK, TASK, TOOLBOX, TOOLS, judged

RUNS = 250  # in each of two tiers
HOSTILE = (
    "say_nothing",
    "say_what_is_no_answer",
    "have_a_child_answer",
    "forge_the_verdict",
    "say_far_too_much",
    "say_far_too_much_unasked",
)
# The branch itself counts as one that its process died of. What `say_nothing` patches shows in the next request only.
KILLED = {"say_what_is_no_answer", "say_far_too_much_unasked"}
NOBODY = 65534
HERE = Path(__file__).parent


@pytest.mark.nightly
@pytest.mark.parametrize("isolation", TIERS)
async def test_hostile_branches_spoil_no_other_and_forge_no_verdict(
    tmp_path_factory: pytest.TempPathFactory, isolation: Isolation
) -> None:
    tier_called(isolation)
    folder = box(tmp_path_factory.mktemp("toolboxes") / "liars", TOOLBOX, tools__py=TOOLS, domain__py=CHECK)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    limits, told = Limits(observation_kib=4), {"folder": str(folder)}
    found: Counter[tuple[str, str]] = Counter()
    async with SandboxPool("toolbox", isolation=isolation, limits=limits, settings=told) as pool:
        honest = assistant(None, call("work", "{}", "c1"))
        request = await played(pool, TASK, [honest])
        async with restored(request, pool) as episode:
            for tool in islice(cycle(HOSTILE), RUNS):
                hostile = assistant(None, call(tool, "{}", "c1"))
                attempt, after = await episode.branch(0, [hostile, honest])
                found[tool, attempt.failure_kind or "answered"] += 1
                assert after.observation is not None, tool
                assert after.observation.text == "done", tool
        async with pool.fresh_session() as session:
            assert not await judged(session, "work")
    for tool in HOSTILE:
        kinds = {kind for name, kind in found if name == tool}
        assert kinds == {"died" if tool in KILLED else "too_large" if tool == "say_far_too_much" else "answered"}, tool
    assert found.total() == RUNS


def _as_nobody(*command: str, home: Path) -> subprocess.CompletedProcess[str]:
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    variables = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*become, *command], env=variables, capture_output=True, text=True)


@pytest.mark.nightly
@pytest.mark.parametrize("suite", ["test_hostile_runs.py", "test_hostile_branches.py", "test_escapes.py"])
def test_an_ordinary_users_sandboxes_hold_too(suite: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip(
            "the tests run as an ordinary user already, or setpriv is missing: run them as root with util-linux"
        )
    home = tmp_path_factory.mktemp("nobody")
    os.chown(home, NOBODY, NOBODY)
    for above in (home, *home.parents):
        if above.stat().st_uid == os.geteuid() and above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(0o755)
    begins = "import streams, pytest, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    if _as_nobody(sys.executable, "-c", begins, home=home).returncode:
        pytest.skip(f"an ordinary user cannot run {sys.executable}: let everybody read Python and the packages")
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home / 'tests'}", "-o", "addopts=")
    done = _as_nobody(
        sys.executable, *arguments, "--import-mode=importlib", "-k", "not ordinary", str(HERE / suite), home=home
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
