"""Benchmarks: ours beside its peers in one run, with the physical limit."""

from .step import bench_step

__all__ = ["bench_step"]
