"""The database that the settings choose. The store's writer, backups and `ratchet doctor` call it."""

from streams.store.database import Database
from streams.store.ducklake import Lake
from streams.store.settings import StoreSettings


def open_database(settings: StoreSettings) -> Database:
    """Open or create the file, or attach the lake. Raises `StoreError` and `ConfigurationError` as these do."""
    if settings.is_lake:
        return Lake.attach(settings.lake, settings.memory)
    return Database.open(settings.path, settings.memory)
