"""What a training run minimises, one algorithm per file."""
