"""The gates that a candidate must pass before it may serve, one per file, on the interface in `gate.py`.

`evaluation/trial.py` plays those that `gate.gates` names. Imports the modules of `evaluation` below it, and `streams`.
"""
