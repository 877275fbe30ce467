"""Input of a fit, and the hooks by which a strategy of continual training takes part in it."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from ....kernels.arrays import Bools, Int64s
from ...config import TrainingConfig
from ...model import SequenceModel
from ..loss import at_events, vectors_before
from ..windows import PackedWindows, UserLog, Windows

__all__ = ["Composition", "FitContext", "FitData", "StepContext", "Strategy"]


class FitData(NamedTuple):
    """What a fit learns from.

    ``recent`` are the windows that every pass reads, ``validation`` those of users that it leaves out: of these only
    events after ``since_seq`` count. ``version_rows`` maps store rows to rows of the model. A later version has a
    ``parent`` model that it grew from, whose rows are the first ones of the new vocabulary in the same order, and
    ``old`` windows that a strategy may replay; a first version has neither.
    """

    log: UserLog
    version_rows: Int64s
    recent: Windows
    validation: Windows
    since_seq: int
    parent: SequenceModel | None = None
    old: Windows | None = None


class FitContext(NamedTuple):
    """What a strategy sees when a fit of ``steps`` steps begins; ``model`` has the weights and items it starts from.

    ``effort`` says how many times as good the parent model was before a fall of quality, 1 without one.
    """

    model: SequenceModel
    parent: SequenceModel
    log: UserLog
    version_rows: Int64s
    old: Windows
    since_seq: int
    steps: int
    config: TrainingConfig
    rng: np.random.Generator
    effort: float = 1.0


class StepContext:
    """A batch, or a thread's part of it, on its way through the model.

    ``events`` (r) are the rows of the batch that count, ``vectors`` (r, d) the users' vectors at these events and
    ``table`` (V, d) the item vectors, both with gradients. ``query_time`` (T) says which vectors are modulated for the
    time of their event, None all.
    """

    def __init__(
        self,
        batch: PackedWindows,
        events: torch.Tensor,
        query_time: Bools | None,
        vectors: torch.Tensor,
        table: torch.Tensor,
        parent: SequenceModel,
    ) -> None:
        self.batch, self.events, self.vectors, self.table = batch, events, vectors, table
        self._query_time, self._parent = query_time, parent

    @cached_property
    def parent_vectors(self) -> torch.Tensor:
        """The same users' vectors (r, d) by the parent model, without gradients."""
        parent = self._parent
        # items that came later are unknown to it
        known = self.batch._replace(items=np.minimum(self.batch.items, parent.items))
        with torch.no_grad():
            hidden = vectors_before(parent, known)[self.events].to(self.table.dtype)
            modulated = at_events(parent, known, hidden, self.events)
            if self._query_time is None:
                return modulated
            chosen = torch.from_numpy(self._query_time).to(hidden.device)[self.events]
            return torch.where(chosen[:, None], modulated, hidden)


class Strategy:
    """Plain fine-tuning, and the base of all strategies: every hook does nothing.

    One object serves one fit. Calls: `begin`, then per step `before_step`, for each thread's part of the batch
    `angular` and `loss` (threads run at once, so that these change nothing and draw nothing), `gradients` and
    `after_step`; at measurements `shown`; `end`. ``share`` is that of old windows in the events of a pass.
    """

    name: ClassVar[str] = "finetune"
    share: float = 0.0

    def begin(self, context: FitContext) -> None:
        """Prepare for a fit: before the first step."""

    def old_windows(self, events: float) -> Windows | None:
        """Return about ``events`` events of old windows that join a pass, None for none; once per pass."""
        del events
        return None

    def parameters(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return what the optimiser updates in place of the model's ``parameters``; once, after `begin`."""
        return parameters

    def before_step(self) -> None:
        """Draw what the step needs."""

    def angular(self, batch: PackedWindows) -> Bools | None:
        """Pick the events (T) that change the directions of item vectors only, None for none."""
        del batch
        return None

    def loss(self, step: StepContext) -> torch.Tensor | None:
        """Return a term, a mean over the events of a part, that is added to the loss; None for none."""
        del step
        return None

    def gradients(self) -> None:
        """Change the gradients, which lie in the model's parameters, before they are clipped and applied."""

    def after_step(self, rate: float) -> None:
        """Change the weights after an update at the learning rate ``rate``."""
        del rate

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """Put the weights that the strategy would end with into the model while it is measured."""
        return contextlib.nullcontext()

    def end(self) -> None:
        """Leave the final weights in the model: after the last step."""


class Composition(Strategy):
    """Several strategies, asked one after another; the names are joined by "+"."""

    def __init__(self, parts: Sequence[Strategy]) -> None:
        self.parts = parts
        self.share = max(part.share for part in parts)

    def begin(self, context: FitContext) -> None:
        """Prepare all."""
        for part in self.parts:
            part.begin(context)

    def old_windows(self, events: float) -> Windows | None:
        """Return those of the one part that replays."""
        found = (part.old_windows(events) for part in self.parts)
        return next((windows for windows in found if windows is not None), None)

    def parameters(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Let each replace what the one before it gave."""
        for part in self.parts:
            parameters = part.parameters(parameters)
        return parameters

    def before_step(self) -> None:
        """Let all draw."""
        for part in self.parts:
            part.before_step()

    def angular(self, batch: PackedWindows) -> Bools | None:
        """Return the first choice."""
        found = (part.angular(batch) for part in self.parts)
        return next((flags for flags in found if flags is not None), None)

    def loss(self, step: StepContext) -> torch.Tensor | None:
        """Return the sum of all terms."""
        terms = [term for part in self.parts if (term := part.loss(step)) is not None]
        return torch.stack(terms).sum() if terms else None

    def gradients(self) -> None:
        """Let all change them."""
        for part in self.parts:
            part.gradients()

    def after_step(self, rate: float) -> None:
        """Let all change the weights."""
        for part in self.parts:
            part.after_step(rate)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Put the final weights of all into the model."""
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.shown())
            yield

    def end(self) -> None:
        """End all."""
        for part in self.parts:
            part.end()
