import numpy as np
import pytest

from recurra.simulations.forgetting import backward_transfer, forgetting, forward_transfer

# by hand: the first cohort falls from .6 over .7 to .4, the second from .5 to .45; both were looked at before
_QUALITY = np.array(
    [
        [0.6, 0.2, 0.1],
        [0.7, 0.5, 0.3],
        [0.4, 0.45, 0.8],
    ]
)


def test_backward_transfer_compares_the_last_round_with_the_one_that_learnt() -> None:
    assert backward_transfer(_QUALITY) == pytest.approx(((0.4 - 0.6) + (0.45 - 0.5)) / 2)


def test_forgetting_compares_the_last_round_with_the_best() -> None:
    assert forgetting(_QUALITY) == pytest.approx(((0.7 - 0.4) + (0.5 - 0.45)) / 2)


def test_forward_transfer_compares_the_round_before_with_nothing_learnt() -> None:
    untrained = np.array([9.0, 0.05, 0.1])
    assert forward_transfer(_QUALITY, untrained) == pytest.approx(((0.2 - 0.05) + (0.3 - 0.1)) / 2)


def test_what_never_falls_has_nothing_forgotten() -> None:
    rising = np.array([[0.1, 0.0], [0.2, 0.3]])
    assert forgetting(rising) == pytest.approx(-0.1)
    assert backward_transfer(rising) == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3,)])
def test_rounds_and_cohorts_must_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="as many rounds as cohorts"):
        forgetting(np.zeros(shape))
    with pytest.raises(ValueError, match="untrained model"):
        forward_transfer(_QUALITY, np.zeros(2))
