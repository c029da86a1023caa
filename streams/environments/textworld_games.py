"""Generates the games that `textworld.py` plays.

Run as `python -m streams.environments.textworld_games GAME FOLD NUMBER FILE`.

What is generated follows the order of Python's sets, so a process of its own fixes the seed of its string hashes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType

from textworld import GameOptions
from textworld.challenges import CHALLENGES
from textworld.generator import compile_game

from streams.errors import SandboxError

GAMES = ("coin_collector", "cooking", "treasure_hunter")

# A game's number is the seed that it is generated from, so no game is in two folds. Those from 2000 on are reserved.
FOLDS = MappingProxyType({"train": range(1000), "dev": range(1000, 2000)})

# Which of the challenge's food a recipe is made of, so that a recipe met in training is never one of an evaluation.
_FOOD = {"train": "train", "dev": "valid"}


def generate(game: str, fold: str, number: int) -> Path:
    """The compiled game, in a new folder for temporary files; what TextWorld knows of it lies beside it as `.json`.

    The same game comes out in every process. Raises `SandboxError` when the generator finds none for `number`.
    """
    # By how its file's name begins, the machine knows a game of TextWorld and leaves the status line out of answers.
    folder = tempfile.mkdtemp(prefix="textworld-")
    file = Path(folder) / "tw-game.z8"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "streams.environments.textworld_games", game, fold, str(number), str(file)],
        env={**os.environ, "PYTHONHASHSEED": "0", "HOME": folder},  # the compiler writes to its home
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise SandboxError(f"TextWorld could not generate {game}/{fold}/{number}: {reason}. Take another number.")
    return file


def _settings(game: str, fold: str, number: int) -> dict[str, int | str | bool]:
    """As long as a small model can learn: about 10, 17 and 6 actions solve it."""
    match game:
        case "coin_collector":
            return {"level": 110}
        case "treasure_hunter":
            return {"level": 15}
    return {
        **{"recipe": 2, "take": 2, "open": True, "cook": True, "cut": True, "drop": False, "go": 6},
        **{"recipe_seed": number, "split": _FOOD[fold]},
    }


def main() -> None:
    game, fold, number, file = sys.argv[1:]
    options = GameOptions()
    options.seeds = int(number)
    options.path = file
    # The goal is told, not every action that leads to it.
    options.grammar.only_last_action = True
    _, make, _ = CHALLENGES[f"tw-{game}"]
    compile_game(make(_settings(game, fold, int(number)), options), options)


if __name__ == "__main__":
    main()
