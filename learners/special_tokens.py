"""Special tokens against text that names them: what a template writes is a token, what an author writes is text.

`learners.chat` asks it. A text that names a special token is rendered with stand-ins: for the author's words one that
becomes those words again, for the template's own tokens an alias that only a second tokenizer knows.
"""

import json
import re
import secrets
from functools import lru_cache
from typing import Any, TypeVar

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from ratchet_client.errors import ConfigurationError

# Stands in texts for what is put in later: drawn for each process, so that nobody can write it into a message.
_NONCE = secrets.token_hex(8)
MARK = f"\U000ffff0{_NONCE}"

_Value = TypeVar("_Value")


class SpecialTokens:
    """The special tokens of one tokenizer.

    Attributes:
        by_text: the tokenizer's own description of each, by its text.
        ids: their numbers, without that of the unknown token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        """`name` is the base model's. Raises `ConfigurationError` when they cannot be told from text."""
        added, self._plain, self._literal = _encoders(tokenizer.backend_tokenizer.to_str(), name)
        self.by_text = {token["content"]: token for token in added if token["special"]}
        self.ids = frozenset(token["id"] for token in self.by_text.values()) - {tokenizer.unk_token_id}
        self._pattern = re.compile("|".join(re.escape(text) for text in sorted(self.by_text, key=len, reverse=True)))
        self._masks = {text: f"\U000ffff1{_NONCE}{number}\U000ffff2" for number, text in enumerate(self.by_text)}
        # Such special tokens are also found in text that becomes their name, such as letters of another width.
        normalized = any(token["normalized"] for token in self.by_text.values())
        self._normalizer = self._plain.normalizer if normalized else None

    def named_in(self, value: object) -> bool:
        """Return whether any text within `value`, which may be nested, names a special token."""
        if isinstance(value, str):
            normalized = self._normalizer.normalize_str(value) if self._normalizer is not None else ""
            return bool(self.by_text) and bool(self._pattern.search(value) or self._pattern.search(normalized))
        if isinstance(value, dict):
            return any(self.named_in(key) or self.named_in(item) for key, item in value.items())
        return isinstance(value, list | tuple) and any(self.named_in(item) for item in value)

    def masked(self, value: _Value) -> _Value:
        """`value` with a stand-in for each name of a special token in its texts."""
        found: Any = value
        if isinstance(value, str):
            found = self._pattern.sub(lambda text: self._masks[text[0]], value)
        elif isinstance(value, dict):
            found = {self.masked(key): self.masked(item) for key, item in value.items()}
        elif isinstance(value, list | tuple):
            found = [self.masked(item) for item in value]
        return found  # type: ignore[no-any-return]  # the same shape, of the same kinds of values

    def unmasked(self, rendered: str) -> str:
        """A text that was rendered from masked values: the template's tokens as aliases, the authors' words as text."""
        text = self._pattern.sub(lambda found: _alias(self.by_text[found[0]]), rendered)
        for special, mask in self._masks.items():
            text = text.replace(mask, special)
        return text

    def encode(self, text: str, *, literal: bool) -> Encoding:
        """The tokens of a rendered text; with `literal`, special tokens are their aliases only."""
        # The template has written every special token already.
        return (self._literal if literal else self._plain).encode(text, add_special_tokens=False)

    def encode_after(self, text: str, *, literal: bool) -> list[int]:
        """The tokens of a text that follows another: some tokenizers write a space before a text of its own."""
        for special, token in self.by_text.items():
            if not token["rstrip"]:
                anchor = _alias(token) if literal else special
                return list(self.encode(anchor + text, literal=literal).ids[1:])
        return list(self.encode(text, literal=literal).ids)

    def text_of(self, token: int) -> str:
        special = (text for text, found in self.by_text.items() if found["id"] == token)
        return next(special, None) or str(self._plain.decode([token], skip_special_tokens=False))


@lru_cache(maxsize=4)  # it writes and reads whole vocabularies, and a process opens the same base model many times
def _encoders(serialised: str, name: str) -> tuple[list[dict[str, Any]], Tokenizer, Tokenizer]:
    """The descriptions of a tokenizer's added tokens, and the tokenizer as it is and with its special tokens' aliases.

    Raises `ConfigurationError` where the library cannot make the latter.
    """
    document = json.loads(serialised)
    document |= {"truncation": None, "padding": None, "post_processor": None}
    return document["added_tokens"], Tokenizer.from_str(json.dumps(document)), _with_aliases(document, name)


def _with_aliases(document: dict[str, Any], name: str) -> Tokenizer:
    """The tokenizer of `document` with special tokens under aliases, so that their own names are ordinary text."""
    aliases = {token["content"]: _alias(token) for token in document["added_tokens"] if token["special"]}
    model = dict(document["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {aliases.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = aliases.get(model["unk_token"], model["unk_token"])
    added = [
        token | {"content": aliases[token["content"]], "normalized": False} if token["special"] else token
        for token in document["added_tokens"]
    ]
    try:
        return Tokenizer.from_str(json.dumps(document | {"model": model, "added_tokens": added}))
    # The library raises bare exceptions.
    except Exception as error:
        raise ConfigurationError(
            f"the special tokens of {name} cannot be told from text that names them: {error}; choose another base model"
        ) from error


def _alias(token: dict[str, Any]) -> str:
    return f"\U000ffff3{_NONCE}{token['id']}\U000ffff4"
