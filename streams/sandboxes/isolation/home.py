"""The folder that belongs to one sandbox, made and removed by the pool. What lies in it may be put there to harm."""

import os
import secrets
import stat
import tempfile
from pathlib import Path


def make_home() -> Path:
    """A new folder for one sandbox, with the folder `home` in it, the only one that the sandbox itself may write.

    What the pool keeps of a sandbox, such as its standard error, belongs beside `home` and not into it: a sandbox can
    put a link in the place of any file it can reach.
    """
    folder = Path(tempfile.mkdtemp(prefix="ratchet-sandbox-"))
    # A sandbox that runs as a user of its own must get through to its home.
    folder.chmod(0o711)
    (folder / "home").mkdir(mode=0o700)
    return folder


def remove_home(folder: Path) -> None:
    """Remove what `make_home` made, after the sandbox's last process is dead. Links are removed, never followed.

    `shutil.rmtree` goes down by recursion, one open file for each level, and gives up on folders without permissions; a
    sandbox can nest folders until either ends it. This empties one folder at a time and moves those inside to the top.
    """
    pending = [folder]
    while pending:
        emptied = pending.pop()
        emptied.chmod(0o700)
        for entry in list(os.scandir(emptied)):
            if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                risen = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, risen)
                pending.append(risen)
            else:
                os.unlink(entry.path)
        emptied.rmdir()
