"""Settings of the store; the record role takes them."""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ratchet_client.settings import FrozenModel, Secret

_LONG_TURN_S = 24 * 3600


class Backend(StrEnum):
    """Where the tables are: in a file that one record role writes, or in a lake that several write."""

    DUCKDB = "duckdb"
    DUCKLAKE = "ducklake"


class LakeSettings(FrozenModel):
    """Settings of the lake. Every record role has the same."""

    catalog: str = Field(
        default="", description="The PostgreSQL database of the catalog, as libpq has it: dbname=… host=… user=…"
    )
    password: Secret = Field(
        default=SecretStr(""), description="The user's password there; empty: what libpq finds, as in ~/.pgpass."
    )
    data: Path | None = Field(
        default=None, description="Folder of the Parquet files: every record role sees it under this very path."
    )
    turn_s: int = Field(default=60, ge=1, description="Longest time, in seconds, to wait for a turn, and to have one.")
    merge_s: float = Field(default=60.0, gt=0, description="How often, in seconds, small Parquet files are merged.")
    keep_days: float = Field(
        default=30.0, gt=0, description="How long earlier snapshots can be read, by AT in queries, in days."
    )

    @field_validator("catalog")
    @classmethod
    def _has_no_password(cls, catalog: str) -> str:
        if "://" in catalog or "password" in catalog:
            # It is told in errors, and to every client that may query.
            raise ValueError("write it as dbname=… host=… user=…, and the password as lake.password")
        return catalog

    @field_validator("data")
    @classmethod
    def _is_a_whole_path(cls, data: Path | None) -> Path | None:
        if data is not None and not data.is_absolute():
            raise ValueError("write the whole path of a folder, which object storage is not")
        return data

    def for_a_long_turn(self) -> Self:
        """These settings for one that writes every table in a turn; `turn_s` is for a batch."""
        return self.model_copy(update={"turn_s": _LONG_TURN_S})


class StoreSettings(FrozenModel):
    """Where the store is, and the HTTP interface of the process that writes it."""

    backend: Backend = Field(
        default=Backend.DUCKDB, description="duckdb: one file, one record role. ducklake: a lake, several record roles."
    )
    path: Path = Field(
        default=Path(".ratchet/store.duckdb"),
        description="The DuckDB file; one process writes it. The keys of the record role are beside it in any case.",
    )
    lake: LakeSettings = Field(default=LakeSettings(), description="The lake, where the backend is ducklake.")
    host: str = Field(default="127.0.0.1", description="Where the query API listens; off loopback it needs tokens.")
    port: int = Field(default=8401, ge=0, le=65535, description="Port of the query API.")
    batch: int = Field(default=1000, ge=1, description="Most records that are fetched at once.")
    batch_s: float = Field(default=0.5, gt=0, description="Longest wait, in seconds, for a batch to fill.")
    memory: str = Field(default="1GB", description="DuckDB's memory limit.")
    query_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest time of a query of the query API, sending its rows included."
    )
    query_bytes: int = Field(
        default=16 * 2**30, ge=1, description="Most bytes of the answer of a query of the query API, as Arrow has them."
    )
    queries: int = Field(default=4, ge=1, description="Queries of the query API that run at once; more wait a little.")

    @model_validator(mode="after")
    def _a_lake_is_named(self) -> Self:
        if self.is_lake and not (self.lake.catalog and self.lake.data):
            raise ValueError("the backend ducklake needs lake.catalog and lake.data: set both")
        return self

    @property
    def is_lake(self) -> bool:
        return self.backend is Backend.DUCKLAKE
