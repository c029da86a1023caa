"""The file of a home's tokens: `ratchet token` writes it, and every process that answers over HTTP reads it."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.access.tokens import AccessRole, Caller, RowFilter, Token, digest, new_token, token_id
from streams.runtime.files import write_atomically

_MODE = 0o600


class _Content(FrozenModel):
    """The tokens, and the SHA-256 of their JSON; empty where an older version, or a person, wrote the file."""

    version: int = Field(default=schema_versions.TOKENS, le=schema_versions.TOKENS)
    tokens: tuple[Token, ...] = ()
    checksum: str = ""

    def summed(self) -> "_Content":
        """The same content with its checksum."""
        plain = self.model_copy(update={"checksum": ""})
        return plain.model_copy(update={"checksum": hashlib.sha256(plain.to_json()).hexdigest()})

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


class TokenFile:
    """The tokens of the folder `home`. Once the file is there nobody is let in without one, also if it is empty."""

    def __init__(self, home: Path) -> None:
        self.path = home / "tokens.json"

    def read(self) -> tuple[Token, ...]:
        """All tokens, the oldest first; nothing where there is no file. Raises `ConfigurationError`."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigurationError(
                f"the tokens in {self.path} cannot be read: {error}; run this as the user that Ratchet runs as"
            ) from error
        try:
            return _Content.model_validate_json(content).tokens
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(
                f"the tokens in {self.path} cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
                "restore the file, or remove it and issue new tokens"
            ) from error

    def is_whole(self) -> bool:
        """Return whether it is what `ratchet token` wrote, as far as it tells; one without a checksum must be read."""
        try:
            content = self.path.read_bytes()
            told = _Content.model_validate_json(content)
        except FileNotFoundError:
            return True
        except (OSError, ValidationError):
            return False
        return not told.checksum or content == told.summed().to_json()

    def issue(
        self,
        name: str,
        roles: Sequence[AccessRole],
        lifetime: timedelta | None = None,
        rows: RowFilter | None = None,
    ) -> str:
        """Make a token, and return it: nothing keeps it. Raises `ConfigurationError`, and `ValidationError`."""
        token, now = new_token(), datetime.now(UTC)
        made = Token(
            name=name,
            roles=tuple(sorted(set(roles))),
            sha256=digest(token).hex(),
            created=now,
            expires=None if lifetime is None else now + lifetime,
            rows=rows,
        )
        self._change(lambda tokens: (*tokens, made))
        return token

    def revoke(self, name: str, *, only_older: bool = False) -> tuple[Token, ...]:
        """Remove the tokens of that name, with `only_older` all but the newest, and return them."""
        gone: list[Token] = []

        def without(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
            gone.extend(token for token in tokens if token.name == name)
            if only_older:
                gone[-1:] = []
            return tuple(token for token in tokens if token not in gone)

        self._change(without)
        return tuple(gone)

    def callers(self) -> dict[bytes, Caller]:
        """Who sends which token, by its digest. Raises `ConfigurationError`."""
        return {
            bytes.fromhex(token.sha256): Caller(
                name=token.name,
                roles=frozenset(token.roles),
                expires=None if token.expires is None else token.expires.timestamp(),
                id=token_id(token.sha256),
                rows=token.rows,
            )
            for token in self.read()
        }

    def _change(self, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
        try:
            with self._locked():
                before = self.read()
                after = change(before)
                if after != before:
                    write_atomically(self.path, _Content(tokens=after).summed().to_json(), _MODE)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be written: {error}; run this as the user that Ratchet runs as"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at a time must not lose what the other wrote. The file itself is replaced, so it is no lock."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
