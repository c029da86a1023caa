"""Signs that a candidate succeeds by something else than skill, one per file: pure functions of what was played.

A sentinel takes `Facts` and the `SentinelSettings` and returns a `Finding`; `SENTINELS` in `watch.py` lists them, and
the gate `sentinels` plays what they need. A new one is a file here and an entry there.

Sources: Pan, Bhatia & Steinhardt 2201.03544 (reward hacking comes with abrupt changes of behaviour); ImpossibleBench
2510.20270 (tasks that only a cheat solves); RAGEN-2 2604.06268 (template collapse).
"""
