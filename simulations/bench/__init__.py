"""Benchmarks: ours beside its peers in one run, with the physical limit."""

from .query import bench_query
from .step import bench_step

__all__ = ["bench_query", "bench_step"]
