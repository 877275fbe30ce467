"""Kernels: one folder per operator, each with a naive truth and its fast paths."""
