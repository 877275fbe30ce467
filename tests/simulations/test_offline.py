"""Training by epochs: it learns, stops, repeats under its seed and goes on after a stop."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from recurra.engine.config import Config, ModelConfig, TrainingConfig
from recurra.engine.errors import TrainingError
from recurra.simulations import offline
from recurra.simulations.datasets import Stream
from recurra.simulations.leave_one_out import figures
from recurra.simulations.offline import evaluate, evaluate_counting


def ring(users: int = 60, length: int = 14, items: int = 24, seed: int = 0) -> Stream:
    """Everybody walks around a ring of items, now and then a step too far."""
    rng = np.random.default_rng(seed)
    steps = 1 + (rng.random((users, length)) < 0.1)
    walk = (rng.integers(items, size=(users, 1)) + steps.cumsum(1)) % items
    events = users * length
    return Stream(
        name="ring",
        users=np.tile(np.arange(users, dtype=np.int32), length),
        items=walk.T.reshape(-1).astype(np.int32),
        time_ms=60_000 * np.arange(events),
        types=np.full(events, -1, np.int16),
        weights=np.full(events, np.nan, np.float32),
        order=np.arange(events),
        user_ids=[str(user) for user in range(users)],
        item_ids=[str(item) for item in range(items)],
        type_names=[],
    )


def config(name: str = "streaming", **training: Any) -> Config:
    model = ModelConfig(
        name=name,  # type: ignore[arg-type]
        d_model=16,
        layers=1,
        heads=2,
        head_dim=8,
        d_state=8,
        dropout=0.1,
        time_dropout=0.0,
        max_length=16,
        gru_hidden=16,
    )
    return Config(model=model, training=TrainingConfig(batch_events=128, rate=2e-2, **training))


@pytest.mark.parametrize("name", ["streaming", "sasrec", "gru4rec", "paper"])
def test_every_model_learns_the_ring(name: str) -> None:
    found = evaluate(ring(), config=config(name), max_len=16, epochs=6, seed=1)
    # a random order has .19, and the next item on the ring is nearly certain
    assert found["test"]["ndcg@10"] > 0.45
    assert found["protocol"] == "loo"
    assert found["model"] == name
    assert {"test_masked", "valid", "best_epoch", "epoch_s", "train_events_per_s", "parameters", "seed"} <= found.keys()
    assert ("test_query_time" in found) == (name == "streaming")


def test_drawn_rivals_learn_it_too() -> None:
    found = evaluate(ring(), config=config(sampled_above=10, negatives=12), max_len=16, epochs=6)
    assert found["test"]["ndcg@10"] > 0.6


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("test", "test_masked", "valid", "best_epoch", "history")}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seed_repeats_the_run_and_another_does_not(threads: int) -> None:
    runs = [
        evaluate(ring(), config=config(query_time_share=0.5), max_len=16, epochs=2, seed=seed, threads=threads)
        for seed in (3, 3, 4)
    ]
    assert _facts(runs[0]) == _facts(runs[1])
    assert _facts(runs[0]) != _facts(runs[2])


def test_a_stopped_run_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(ring(), config=config(), max_len=16, epochs=4)
    file = tmp_path / "run.pt"
    real = figures
    calls = []

    def stop_at_third(ranks: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(ranks)

    monkeypatch.setattr(offline, "figures", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(ring(), config=config(), max_len=16, epochs=4, checkpoint=file)
    monkeypatch.undo()
    assert file.exists()
    again = evaluate(ring(), config=config(), max_len=16, epochs=4, checkpoint=file)
    assert _facts(again) == _facts(whole)
    assert not file.exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="cannot go on"):
        evaluate(ring(), config=config(), max_len=16, epochs=1, checkpoint=file)


def test_patience_and_minutes_end_it() -> None:
    still = evaluate(ring(), config=msgspec.structs.replace(config(), training=TrainingConfig(rate=1e-12)), patience=2)
    assert still["epochs"] == 3
    ticks = iter(range(1_000_000))
    short = evaluate(ring(), config=config(), max_len=16, epochs=50, minutes=0.5, clock=lambda: float(next(ticks)))
    assert 1 <= short["epochs"] < 10


@pytest.mark.parametrize("name", ["popularity", "item-knn"])
def test_counting(name: str) -> None:
    found = evaluate_counting(ring(), name)
    assert 0 < found["test"]["hr@10"] <= 1
    assert found["model"] == name
    assert found == evaluate_counting(ring(), name) | {"seconds": found["seconds"]}
