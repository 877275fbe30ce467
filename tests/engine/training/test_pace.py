"""The training program's bound on processor time."""

import pytest

from recurra.engine.config import TrainingConfig
from recurra.engine.errors import ConfigError
from recurra.engine.training.pace import Pace


class Machine:
    """A processor and a clock that move on request."""

    def __init__(self) -> None:
        self.computed = self.passed = 0.0

    def work(self, computed: float, passed: float) -> None:
        self.computed += computed
        self.passed += passed

    def rest(self, seconds: float) -> None:
        self.passed += seconds


@pytest.mark.parametrize("processors", [0.25, 0.5, 1.0, 1.5])
def test_computes_at_most_the_share_of_the_time_that_passed(processors: float) -> None:
    machine = Machine()
    pace = Pace(processors, computed_s=lambda: machine.computed, passed_s=lambda: machine.passed, rest=machine.rest)
    # two threads, then one, then a wait for the disk
    for computed, passed in [(2.0, 1.0), (0.5, 0.5), (0.1, 3.0), (2.0, 1.0)]:
        machine.work(computed, passed)
        before = machine.passed
        pace.keep()
        assert machine.passed - before == pytest.approx(max(0.0, computed / processors - passed))
    assert machine.computed <= processors * machine.passed + 1e-9


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_is_above_nothing_and_at_most_all(share: float) -> None:
    with pytest.raises(ConfigError, match=r"training\.share must be a number, 0\.001 to 1, got"):
        TrainingConfig(share=share)
