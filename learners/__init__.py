"""Floor 2: from stored transitions to a candidate adapter: snapshots, objectives, packing, training."""
