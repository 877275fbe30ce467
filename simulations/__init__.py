"""Simulations: data sets, replays, baselines, generated streams and benchmarks."""
