"""Every row of the store as of one moment, for backups."""

from streams.store.queries.writer import NEXT_SEQUENCE, POSITIONS
from streams.store.tables import TABLES

# One statement sees one state: these offsets are those of this sequence.
MOMENT = f"""
    SELECT (SELECT sequence - 1 FROM ({NEXT_SEQUENCE})) AS as_of,
        (SELECT list({{'topic': topic, 'partition': partition, 'next': next}}) FROM ({POSITIONS})) AS offsets
"""

# All tables but the offsets only grow, so the rows up to a sequence stay what they are while one is read after another.
ROWS = {
    name: 'SELECT "' + '", "'.join(schema.names) + f'" FROM {name} WHERE sequence <= $as_of'
    for name, schema in TABLES.items()
    if "sequence" in schema.names
}
