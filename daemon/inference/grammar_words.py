"""The words of a tokenizer as bytes, as the grammar library reads them: its own reading takes fewer tokenizers.

It marks every added token as special, so that a grammar could not write `<tool_call>` as the one token that it is.
"""

import json
from typing import Any

from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from streams.errors import RequestRefusedError


def grammar_tokenizer(tokenizer: PreTrainedTokenizerFast, vocabulary: int, stop_tokens: frozenset[int]) -> LLTokenizer:
    """The words of `tokenizer` for a model of `vocabulary` tokens whose replies end at `stop_tokens`.

    Raises `RequestRefusedError` when the bytes of its tokens are not known.
    """
    words = _Words(tokenizer, vocabulary, min(stop_tokens))
    return LLTokenizer(TokenizerWrapper(words), n_vocab=vocabulary, eos_token=sorted(stop_tokens))


class _Words:
    """The names are those that `TokenizerWrapper` asks for."""

    bos_token_id = None

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: int, eos: int) -> None:
        document = json.loads(tokenizer.backend_tokenizer.to_str())
        added = {token["id"]: token for token in document["added_tokens"]}
        to_bytes = _byte_reader(document)
        self.eos_token_id = eos
        self.special_token_ids = [number for number, token in added.items() if token["special"]]
        self.tokens = [b""] * vocabulary
        for word, number in tokenizer.get_vocab().items():
            if number < vocabulary:
                self.tokens[number] = word.encode() if number in added else to_bytes(word)
        self._longest = max(map(len, self.tokens))
        self._numbers = {
            word: number for number, word in enumerate(self.tokens) if word and number not in self.special_token_ids
        }
        self._plain = Tokenizer.from_str(json.dumps(_without_prefix_space(document)))
        self._plain.encode_special_tokens = True

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text that the grammar leaves no choice of, as the model has learned to write it."""
        ids = list(self._plain.encode(text.decode(errors="replace"), add_special_tokens=False).ids)
        return ids if b"".join(self.tokens[each] for each in ids) == text else self._longest_first(text)

    def _longest_first(self, text: bytes) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self._numbers), 0)
            if not size:
                break
            ids.append(self._numbers[text[at : at + size]])
            at += size
        return ids


def _byte_reader(document: dict[str, Any]) -> Any:
    decoder = document["decoder"] or {}
    kinds = {each["type"] for each in decoder.get("decoders", [decoder]) if "type" in each}
    if "ByteLevel" in kinds:
        letters = {letter: byte for byte, letter in _byte_letters().items()}
        return lambda word: bytes(letters[letter] for letter in word) if set(word) <= letters.keys() else word.encode()
    if "ByteFallback" in kinds:
        return _fallback_bytes
    raise RequestRefusedError(
        400, "unsupported", "the tokenizer of this model is of a kind for which no grammar can be followed"
    )


def _fallback_bytes(word: str) -> bytes:
    if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
        return bytes([int(word[3:5], 16)])
    return word.replace("\u2581", " ").encode()


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level tokenizers write for each byte: printable bytes stand for themselves."""
    letters = set(ByteLevel.alphabet())
    own = {byte: chr(byte) for byte in range(256) if chr(byte) in letters and chr(byte) not in (" ", "\xad")}
    others = (byte for byte in range(256) if byte not in own)
    return own | {byte: chr(256 + index) for index, byte in enumerate(others)}


def _without_prefix_space(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a tokenizer that writes no space before a text of its own."""
    document = document | {"post_processor": None, "truncation": None, "padding": None}
    normalizer = document["normalizer"]
    if normalizer and normalizer["type"] == "Sequence":
        kept = [each for each in normalizer["normalizers"] if each["type"] != "Prepend"]
        document["normalizer"] = normalizer | {"normalizers": kept}
    elif normalizer and normalizer["type"] == "Prepend":
        document["normalizer"] = None
    if (document["pre_tokenizer"] or {}).get("type") == "Metaspace":
        document["pre_tokenizer"] = document["pre_tokenizer"] | {"prepend_scheme": "never"}
    return document
