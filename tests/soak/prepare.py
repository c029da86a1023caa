"""`python -m tests.soak.prepare FOLDER` writes the tiny model, and the episodes that producers publish, into it.

A process of its own, since Torch and the sandbox's Java stay in memory.
"""

import sys
from pathlib import Path

from tests.builders.base_models import write_tiny_llama
from tests.crash.load import RECORDINGS
from tests.crash.stage import played
from tests.soak.system import MODEL, RECORDED


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / MODEL).mkdir()
    write_tiny_llama(folder / MODEL)
    (folder / RECORDED).write_bytes(RECORDINGS.dump_json(played()))


if __name__ == "__main__":
    main()
