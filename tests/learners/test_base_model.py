"""The base model is what it is said to be, or there is none."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from learners.base_model import base_digest, resolve_base
from learners.settings import EMBEDDED
from streams.errors import ConfigurationError


def test_a_local_folder_is_taken_as_it_is(tiny_base: Path, tmp_path: Path) -> None:
    assert resolve_base(str(tiny_base), tmp_path) == tiny_base.resolve()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_model_is_refused_with_the_files_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks config\.json, tokenizer_config\.json"):
        resolve_base(str(tmp_path / "nowhere"), tmp_path)


def test_the_digest_is_that_of_weights_configuration_and_tokenizer(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_base / name).read_bytes())
    assert base_digest(tmp_path) == base_digest(tiny_base)
    (tmp_path / "README.md").write_text("says nothing about the model")
    assert base_digest(tmp_path) == base_digest(tiny_base)
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert base_digest(tmp_path) != base_digest(tiny_base)


@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_again_when_its_copy_is_damaged(
    embedded_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(embedded_home, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "base" / EMBEDDED
    genuine, weights = base_digest(folder), folder / "model.safetensors"
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 30
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert len(load_file(weights)) > 200
    written = weights.stat().st_mtime_ns
    assert resolve_base(EMBEDDED, tmp_path) == folder
    assert weights.stat().st_mtime_ns == written
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    assert base_digest(folder) != genuine
    assert base_digest(resolve_base(EMBEDDED, tmp_path)) == genuine
    assert [path.name for path in folder.parent.iterdir()] == [EMBEDDED]
