"""A runbook as an operator has it open: the drill does what it says, and nothing that it does not."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.ops.drill.system import System

_DO = "**Do.**"


@dataclass(frozen=True)
class Page:
    """The page of the file `path`, read while `system` is in trouble."""

    path: Path
    system: System

    @property
    def text(self) -> str:
        return " ".join(self.path.read_text().split())

    def says(self, *words: str) -> None:
        """Check that the page asks for what the drill does next; what no command does is done by hand."""
        _, found, remedies = self.text.partition(_DO)
        assert found, f"{self.path.name} has no part Do"
        for each in words:
            assert each in remedies, f"{self.path.name} does not say {each!r}"

    def run(self, command: str, status: int = 0, **values: str) -> str:
        """Run a command that stands on the page, with `values` for its words in capitals; its output.

        One that runs a role is started, and left running when it answers.
        """
        assert f"`{command}`" in self.text, f"{self.path.name} has no command {command!r}"
        words = shlex.split(re.sub(r"\b[A-Z]{2,}\b", lambda found: values.get(found[0], found[0]), command))
        assert words[0] == "ratchet", command
        if words[1] == "run":
            self.system.start(*words[words.index("--roles") + 1].split(","))
            return ""
        done: subprocess.CompletedProcess[str] = self.system.command(*words[1:])
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr
