"""Benchmarks: ours beside its peers in one run, with the physical limit."""

from .encode import EagerStep, bench_encode
from .query import bench_query
from .step import bench_step

__all__ = ["EagerStep", "bench_encode", "bench_query", "bench_step"]
