"""Floor 3: is a candidate better than the champion? Rollouts on held-out tasks, statistics, the gate, its report."""
