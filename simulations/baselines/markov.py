"""A first-order Markov chain."""

from .sequential_rules import SequentialRules

__all__ = ["Markov"]


class Markov(SequentialRules):
    """What followed the user's last item directly: sequential rules that look one event back."""

    name = "markov"

    def __init__(self) -> None:
        super().__init__(length=1)
