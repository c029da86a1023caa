"""Everything about the log: clients, topics, records and their signatures, the Faust worker, dead-letter records.

Imports `runtime` and the modules at the top of `streams`. Knows nothing of what the records say.
"""
