"""BFCL multi-turn tool use: its scenarios, the simulated APIs, and the environment made of them."""
