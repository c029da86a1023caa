"""Floor 1: the way of the data from an agent's events to stored transitions. Imports no torch."""
