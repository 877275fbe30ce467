"""Features of the gap before an event, or before a query, from the gaps seen since the anchor.

For a gap of g seconds: u = log1p(g) / 10; m and v are mean and population variance of all u since the anchor, this one
included (Welford 1962); phi = [u, (u - m) / sqrt(v + eps), m] with eps = 1e-4. The first event has g = 0, a time that
runs backwards counts as g = 0. A query is what the next event would be if it came now, so that every position of a
window trains it; it leaves the statistics alone.
"""

from typing import Any

import numpy as np
import torch

from ...kernels.jit import jit

__all__ = ["FEATURES", "gap_features", "gap_step", "query_features"]

FEATURES = 3
_EPS = 1e-4


def gap_features(times_ms: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
    """Features (b, l, 3), float64, of event times (b, l) int64 in milliseconds, each row from its anchor on.

    With ``offsets`` (s + 1) from 0 to T the times are (T) and the features (T, 3), of sequences one after another.
    Feature t depends on the times up to t only, so a query at some time is one more column with that time.
    """
    flat = np.ascontiguousarray(times_ms.cpu().numpy()).reshape(-1)
    bounds = np.arange(times_ms.shape[0] + 1) * times_ms.shape[1] if offsets is None else offsets.cpu().numpy()
    phi = np.empty((len(flat), FEATURES))
    _fill(flat, bounds, phi)
    return torch.from_numpy(phi).view(*times_ms.shape, FEATURES).to(times_ms.device)


@jit
def gap_step(gap_ms: int, count: int, mean: float, m2: float) -> Any:
    """One event after ``count`` others with this ``mean`` and sum of squared deviations ``m2``.

    Returns ``(phi_0, phi_1, phi_2, new mean, new m2)``; ``gap_ms`` is ignored for the first event.
    """
    u = 0.0 if count == 0 else np.log1p(max(gap_ms, 0) / 1000.0) / 10.0
    new_mean = mean + (u - mean) / (count + 1)
    new_m2 = m2 + (u - mean) * (u - new_mean)
    return u, (u - new_mean) / np.sqrt(new_m2 / (count + 1) + _EPS), new_mean, new_mean, new_m2


@jit
def _fill(times_ms: Any, bounds: Any, phi: Any) -> None:
    for i in range(len(bounds) - 1):
        mean, m2 = 0.0, 0.0
        for t in range(bounds[i], bounds[i + 1]):
            count = t - bounds[i]
            gap_ms = times_ms[t] - times_ms[t - 1] if count else 0
            phi[t, 0], phi[t, 1], phi[t, 2], mean, m2 = gap_step(gap_ms, count, mean, m2)


@jit
def query_features(gap_ms: Any, count: Any, mean: Any, m2: Any, phi: Any) -> None:
    """Fill ``phi`` (R, 3) for queries after gaps (R) behind events of statistics ``count``, ``mean`` and ``m2`` (R)."""
    for i in range(gap_ms.shape[0]):
        f0, f1, f2, _, _ = gap_step(gap_ms[i], count[i], mean[i], m2[i])
        phi[i, 0], phi[i, 1], phi[i, 2] = f0, f1, f2
