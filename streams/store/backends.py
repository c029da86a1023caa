"""The database that the settings choose, and erasures from it."""

from streams.store.database import Database
from streams.store.ducklake import Lake
from streams.store.erasure import FileErasure
from streams.store.lake_erasure import LakeErasure
from streams.store.settings import StoreSettings


def open_database(settings: StoreSettings) -> Database:
    """Open or create the file, or attach the lake. Raises `StoreError` and `ConfigurationError` as these do."""
    if settings.is_lake:
        return Lake.attach(settings.lake, settings.memory)
    return Database.open(settings.path, settings.memory)


def erasure_of(settings: StoreSettings) -> FileErasure | LakeErasure | None:
    """How something is erased from the file or the lake; None where there is no file yet."""
    if settings.is_lake:
        return LakeErasure(settings)
    return FileErasure(settings) if settings.path.exists() else None
