"""Everything about the log: clients, topics, records, the Faust worker, dead-letter records.

Connections, their security and signatures are those of `ratchet_client.kafka`. Imports `runtime` and the modules at
the top of `streams`. Knows nothing of what the records say.
"""
