"""What the serving benchmarks share: one stack, one load generator, the peers."""
