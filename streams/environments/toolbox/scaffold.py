"""A new toolbox that works, to be changed into one's own. `ratchet environment new` writes it."""

import shutil
from pathlib import Path
from typing import Literal

from ratchet_client.errors import ConfigurationError
from streams.environments.toolbox.definition import DEFINITION

Kind = Literal["mcp", "functions"]

_TEMPLATE = Path(__file__).parent / "template"
_FILES = ("tools.py", "domain.py", "tasks.jsonl", "README.md")
_DEFINITION = """name = "{name}"
{tools}
check = "domain:check"
system_prompt = "You keep the user's to-do list. Call tools until all is done, then answer in a few words."
max_steps = 8
max_tokens = 200
"""
_TOOLS = {
    "mcp": """mcp = ["python", "server.py"]
# The server keeps nothing in memory from one call to the next: it opens the database again for each. Without this line
# it is started again for each state that is tried, which takes most of a second.
stateless = true""",
    "functions": 'functions = "tools.py"',
}


def write_toolbox(folder: Path, name: str, kind: Kind) -> None:
    """Write a toolbox into the new `folder`. Raises `ConfigurationError` where there is something already."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} exists and is not empty. Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*_FILES, *(("server.py",) if kind == "mcp" else ())):
        shutil.copyfile(_TEMPLATE / file, folder / file)
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace('"NAME"', f'"{name}"').replace('"FOLDER"', f'"{folder.absolute()}"'))
    (folder / DEFINITION).write_text(_DEFINITION.format(name=name, tools=_TOOLS[kind]))
    # Sandboxes may run as another user, and what Ratchet writes is its owner's alone otherwise.
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
