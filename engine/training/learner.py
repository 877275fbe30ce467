"""One optimiser step at a time: the loss of a batch, its gradients on one or more threads, the update, checkpoints."""

import contextlib
import math
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..errors import TrainingError
from ..model import SequenceModel
from .loss import Drawn, Sampler, Targets, targets, window_loss
from .strategies import Strategy
from .strategies.base import StepContext
from .windows import PackedWindows

__all__ = ["Learner", "Step", "cosine", "precision_of"]

_WARM_UP = 0.1
_CLIP = 1.0
_FORMAT = 1

Shape = Callable[[int], float]


class Step(NamedTuple):
    """What a step did: the mean loss of its ``events``."""

    loss: float
    events: int


def cosine(steps: int) -> Shape:
    """Return the learning rate's share at each of ``steps`` steps: a rise over the first tenth, then half a cosine."""

    def share(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1.0, _WARM_UP * steps))
        return rise * max(0.02, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))

    return share


def precision_of(setting: str, device: torch.device) -> str:
    """Return the precision of the loss's products: "auto" is bfloat16 where the processor multiplies it in hardware."""
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "float32"


class Learner:
    """A model with its optimiser. Everything random is drawn from ``rng``, so that a seed repeats the run exactly.

    ``seen_weight`` is the weight of what the user had as a negative of the next item, see ``targets``.

    ``shape`` gives the learning rate's share of ``rate`` by step. With ``threads`` above 1 a batch is cut into as many
    parts, whose gradients are added in a fixed order: models with a fused encoder only, the others leave it to torch.

    ``strategy`` takes part in every step, with the ``parent`` model that it compares with; None is plain fine-tuning.
    Checkpoints hold nothing of it.

    Everything runs where the model is. On a GPU ``config.precision`` is that of the layers' products too (autocast);
    parameters, their gradients and sums are float32 either way, and a seed repeats a run up to rounding.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainingConfig,
        *,
        rate: float,
        shape: Shape,
        rng: np.random.Generator,
        seen_weight: float = 0.0,
        sampler: Sampler | None = None,
        threads: int = 1,
        strategy: Strategy | None = None,
        parent: SequenceModel | None = None,
    ) -> None:
        self.model = model
        self.done = 0
        self._config, self._rate, self._shape, self._rng, self._sampler = config, rate, shape, rng, sampler
        self._device = next(model.parameters()).device
        self._seen_weight = seen_weight
        self._precision = precision_of(config.precision, self._device)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._strategy, self._parent = strategy or Strategy(), parent
        self._updated = self._strategy.parameters(self._parameters)
        decay = config.weight_decay
        self._optimizer = torch.optim.AdamW(self._updated, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
        self._parts = threads if model.streams and self._device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._parts) if self._parts > 1 else None

    def step(self, batch: PackedWindows, *, counted: NDArray[np.bool_] | None = None) -> Step:
        """Learn from the events of a batch; ``counted`` (T) picks the targets, None all.

        Raises ``TrainingError`` if the loss is not finite; the weights are then as they were.
        """
        model = self.model
        model.train()
        self._strategy.before_step()
        drawn = None if self._sampler is None else self._sampler.draw(self._rng)
        work = []
        begin = 0
        for part in batch.parts(self._parts):
            end = begin + len(part.items)
            mine = None if counted is None else counted[begin:end]
            chosen = targets(part, model.items, counted=mine, seen_weight=self._seen_weight, drawn=drawn)
            modulated = self._modulated(part)
            if len(chosen.events):
                work.append((part, chosen, modulated, int(self._rng.integers(1 << 62))))
            begin = end
        events = sum(len(chosen.events) for _, chosen, _, _ in work)
        torch.manual_seed(int(self._rng.integers(1 << 62)))
        table = model.item_table()
        leaf = table.detach().requires_grad_()

        def solve(given: tuple[PackedWindows, Targets, NDArray[np.bool_] | None, int]) -> tuple[float, list[Any]]:
            return self._solve(leaf, *given, drawn=drawn, events=events)

        results = list(map(solve, work) if self._pool is None else self._pool.map(solve, work))
        loss = sum(part for part, _ in results)
        if not math.isfinite(loss):
            raise TrainingError(f"the training loss became {loss} at step {self.done + 1}; the serving version stays")
        self._update(table, [gradients for _, gradients in results])
        return Step(loss, events)

    def save(self, path: Path, extra: dict[str, Any]) -> None:
        """Write everything that going on exactly needs, and ``extra`` (plain values), by an atomic rename."""
        state = {
            "format": _FORMAT,
            "done": self.done,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            "extra": extra,
        }
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> dict[str, Any]:
        """Go on where ``save`` was called, with the same model and settings; returns ``extra``.

        Raises ``TrainingError`` if the file is none of ours or of another model.
        """
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            if state["format"] != _FORMAT:
                raise TrainingError(f"{path}: a checkpoint of format {_FORMAT} expected, got {state['format']!r}")
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(f"cannot go on from the checkpoint {path}: {reason}") from None
        self.done = state["done"]
        self._rng.bit_generator.state = state["rng"]
        extra: dict[str, Any] = state["extra"]
        return extra

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _modulated(self, part: PackedWindows) -> NDArray[np.bool_] | None:
        """Pick the windows whose vectors are modulated for the time of the next event, None for all."""
        share = self._config.query_time_share
        if self.model.query_time is None or share >= 1:
            return None
        picked: NDArray[np.bool_] = (self._rng.random(len(part.offsets) - 1) < share)[part.windows]
        return picked

    def _solve(
        self,
        leaf: torch.Tensor,
        part: PackedWindows,
        chosen: Targets,
        modulated: NDArray[np.bool_] | None,
        seed: int,
        *,
        drawn: Drawn | None,
        events: int,
    ) -> tuple[float, list[Any]]:
        with self._products():
            loss = window_loss(
                self.model,
                leaf,
                part,
                chosen,
                drawn=drawn,
                precision=self._precision,
                seed=seed,
                query_time=modulated,
                angular=self._strategy.angular(part),
                term=self._term,
            )
        loss = loss * (len(chosen.events) / events)
        # asked for last: until then a GPU is not waited for
        gradients = torch.autograd.grad(loss, [leaf, *self._parameters], allow_unused=True)
        return loss.item(), list(gradients)

    def _term(
        self,
        batch: PackedWindows,
        events: torch.Tensor,
        query_time: NDArray[np.bool_] | None,
        vectors: torch.Tensor,
        table: torch.Tensor,
    ) -> torch.Tensor | None:
        if self._parent is None:
            return None
        return self._strategy.loss(StepContext(batch, events, query_time, vectors, table, self._parent))

    def _products(self) -> contextlib.AbstractContextManager[Any]:
        """Let the layers' products be made in the loss's precision; on the CPU their own passes are float32."""
        if self._device.type == "cpu" or self._precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _update(self, table: torch.Tensor, results: list[list[Any]]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if results:
            total = [_added(parts) for parts in zip(*results, strict=True)]
            for parameter, gradient in zip(self._parameters, total[1:], strict=True):
                parameter.grad = gradient
            torch.autograd.backward(table, total[0])
            self._strategy.gradients()
            torch.nn.utils.clip_grad_norm_(self._updated, _CLIP)
        rate = self._rate * self._shape(self.done)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._strategy.after_step(rate)
        self.done += 1


def _added(parts: tuple[Any, ...]) -> Any:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    total = present[0]
    for part in present[1:]:
        total += part
    return total
