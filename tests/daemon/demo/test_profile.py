"""The time of a demo by phase and process."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from daemon.console import Narrator
from daemon.demo.phases import phases
from daemon.demo.profile import Mark, PhaseUse, Profile, Sample, Use
from daemon.demo.profile_plot import draw
from daemon.demo.profiling import PICTURE, PROFILE, Sampler, name_of
from ratchet_client.errors import ConfigurationError

MARKS = (Mark(phase="start", at=0.0), Mark(phase="agent", at=1.5), Mark(phase="start", at=3.0))
SAMPLES = (
    Sample(at=1.0, processor_s={"demo": 0.5}),
    Sample(at=1.5, processor_s={"demo": 0.5, "serve": 0.25}),
    Sample(at=2.5, processor_s={"demo": 0.0, "serve": 1.75}),
    Sample(at=3.0, processor_s={"serve": 0.5}),
    Sample(at=4.0, processor_s={"demo": 0.25}),
)
BURNT_S = 0.4
# A process of a demo's agent, one of whose own children has burnt some processor time and ended.
PARENT = f"""
import subprocess, sys
child = "import time\\nwhile time.process_time() < {BURNT_S}: pass"
subprocess.run([sys.executable, "-c", child], check=True)
print("burnt", flush=True)
sys.stdin.read()
"""


def test_each_phase_has_the_seconds_of_its_own_samples() -> None:
    profile = Profile.of(MARKS, SAMPLES)
    assert profile.phases == (
        PhaseUse(
            name="start",
            begin=0.0,
            end=1.5,
            processes={"demo": Use(processor_s=1.0, idle_s=0.5), "serve": Use(processor_s=0.25, idle_s=0.25)},
        ),
        PhaseUse(
            name="agent",
            begin=1.5,
            end=3.0,
            # More than a second of two threads in a second leaves no less idle in the next one.
            processes={"demo": Use(processor_s=0.0, idle_s=1.0), "serve": Use(processor_s=2.25, idle_s=0.0)},
        ),
        PhaseUse(name="start", begin=3.0, end=4.0, processes={"demo": Use(processor_s=0.25, idle_s=0.75)}),
    )
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_a_demo_that_ended_before_its_first_phase_has_none() -> None:
    assert Profile.of((), SAMPLES[:1]).phases == ()


def test_the_table_sums_up_the_phases_of_a_name() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(Profile.of(MARKS, SAMPLES).table())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows == [
        ["start", "2", "2.5", "demo 1.2, serve 0.2"],
        ["agent", "1", "1.5", "serve 2.2, demo 0.0"],
        ["all", "3", "4.0", "serve 2.5, demo 1.2"],
    ]


def test_the_picture_names_every_phase_and_process(tmp_path: Path) -> None:
    draw(Profile.of(MARKS, SAMPLES), tmp_path / PICTURE)
    drawn = (tmp_path / PICTURE).read_text()
    assert "<svg" in drawn
    assert all(f"<!-- {name} -->" in drawn for name in ("start", "agent", "demo", "serve"))


@pytest.mark.parametrize(
    ("command", "parent", "name"),
    [
        ("python -m daemon.cli run --roles branch --parent 7", "demo", "branch"),
        ("python -m daemon.inference --model folder", "demo", "inference"),
        ("python -m learners.trainer job.json 7", "demo", "training"),
        ("tansu broker --storage-engine memory://tansu/", "demo", "broker"),
        ("python -m examples.helpdesk.agent --tasks a,b", "demo", "agent"),
        ("python -m examples.helpdesk.server", "agent", "agent"),
        ("bwrap -- python -I -m streams.sandboxes.worker", "demo", "demo sandboxes"),
        ("bwrap -- python -I -m streams.sandboxes.worker", "branch", "branch sandboxes"),
        ("java -jar game.jar", "branch sandboxes", "branch sandboxes"),
        ("python -c tracker", "demo", "other"),
    ],
)
def test_a_process_is_named_by_its_command_and_by_who_started_it(command: str, parent: str, name: str) -> None:
    assert name_of(command.split(), parent) == name


def test_the_time_of_a_child_that_ended_is_its_parents() -> None:
    sampler = Sampler(psutil.Process())
    command = [sys.executable, "-c", PARENT, "--tasks"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "burnt\n"
        used = sampler.used()
        assert used["agent"] >= BURNT_S
        # What it burnt is told once.
        assert sampler.used()["agent"] < BURNT_S
        assert agent.stdin is not None
        agent.stdin.close()
    assert "agent" not in sampler.used()


def fail_in_the_second_phase(home: Path) -> None:
    with phases(home, Narrator(), profile=True) as begin:
        begin("first")
        begin("first")
        begin("second")
        raise RuntimeError("the demo fails")


def test_a_profile_and_its_picture_are_written_also_of_what_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the demo fails"):
        fail_in_the_second_phase(tmp_path)
    profile = Profile.model_validate_json((tmp_path / PROFILE).read_text())
    first, second = profile.phases
    assert (first.name, second.name) == ("first", "second")
    assert 0.0 == first.begin <= first.end == second.begin <= second.end
    assert "demo" in second.processes
    assert (tmp_path / PICTURE).is_file()


def test_nothing_is_written_where_nobody_asks_for_a_profile(tmp_path: Path) -> None:
    with phases(tmp_path, Narrator(), profile=False) as begin:
        begin("first")
    assert list(tmp_path.iterdir()) == []


def test_a_profile_says_at_once_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("daemon.demo.profiling", "daemon.demo.profile_plot"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match="matplotlib"):
        phases(tmp_path, Narrator(), profile=True)
