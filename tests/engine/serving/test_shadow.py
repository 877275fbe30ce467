"""Going back to the version before: the test behind it, and the engine that does it."""

import numpy as np
import pytest

from recurra.engine.serving.shadow import Evidence


def _highest(values: np.ndarray) -> float:
    evidence, highest = Evidence(), 0.0
    for value in values.tolist():
        evidence.add(value)
        highest = max(highest, evidence.log_gain)
    return highest


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_what_is_no_worse_is_rarely_taken_for_worse(spread: float) -> None:
    rng = np.random.default_rng(0)
    # two versions that rank differently and are worth the same
    wrong = sum(_highest(spread * rng.choice([-1.0, 0.0, 1.0], 1_000)) >= np.log(20) for _ in range(400))
    # at the level of 5 %, at whichever of the 1,000 events one stops
    assert wrong / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert wrong > 0


def test_what_is_worse_is_soon_taken_for_worse() -> None:
    rng = np.random.default_rng(0)
    needed = []
    for _ in range(50):
        evidence, count = Evidence(), 0
        while evidence.log_gain < np.log(100):
            evidence.add(float(np.clip(rng.normal(0.1, 0.2), -1, 1)))
            count += 1
        needed.append(count)
    assert np.median(needed) < 150
    assert max(needed) < 400


def test_evidence_is_bounded_below_zero_never_lost() -> None:
    evidence = Evidence()
    for value in [1.0] * 50 + [-1.0] * 50:
        evidence.add(value)
    assert np.isfinite(evidence.log_gain)
