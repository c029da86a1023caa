"""Settings of the store; the record role takes them."""

from pathlib import Path

from pydantic import Field

from ratchet_client.settings import FrozenModel


class StoreSettings(FrozenModel):
    """The DuckDB file and the HTTP interface of the process that writes it."""

    path: Path = Field(default=Path(".ratchet/store.duckdb"), description="The DuckDB file; one process writes it.")
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
