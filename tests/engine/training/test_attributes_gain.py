"""The worth of attributes on real data: the figures are in docs/how-to/attributes.md."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recurra.connectors.catalogue import read_items
from recurra.engine.config import Config, GateConfig, ModelConfig, TrainingConfig
from recurra.engine.training import UserLog
from recurra.engine.training.gate import event_ranks
from recurra.engine.training.rounds import Round, train_round
from recurra.simulations.datasets import load

BUCKETS = 4_096


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "catalogue", "tokens"),
    [
        ("ml-100k", "ml-100k.item", 200_000),
        ("ml-100k", "ml-100k.item", 800_000),
        ("ml-latest-small", "movies.csv", 300_000),
        ("movietweetings", "movies.dat", 300_000),
    ],
)
def test_attributes_help(
    shared_data: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    catalogue: str,
    tokens: int,
) -> None:
    """Train on the first nine tenths of a stream, with and without, and rank the last tenth among the items known."""
    folder = shared_data(name)
    stream = load(folder, shuffle_ties=1)
    records = {item.item: item for item in read_items(folder / catalogue).items}
    columns = (stream.users, stream.items, stream.time_ms, np.arange(len(stream)))
    log = UserLog.of(*(np.asarray(column, np.int64) for column in columns))
    found = []
    for buckets in (0, BUCKETS):
        config = Config(
            model=ModelConfig(attributes=buckets),
            training=TrainingConfig(first_tokens=tokens),
            gate=GateConfig(holdout_events=len(stream) // 10, holdout_share=0.0),
        )
        given = Round(log, stream.item_ids, None, config, records=[records.get(item) for item in stream.item_ids])
        outcome = train_round(given)
        assert outcome.model is not None
        rows = {item: row for row, item in enumerate(outcome.vocabulary)}
        version_rows = np.array([rows.get(item, len(rows)) for item in stream.item_ids])
        targets = np.flatnonzero(log.seqs > outcome.report.cutoff_seq)
        rank = event_ranks(outcome.model, log, targets, version_rows, config.store.anchor)
        found.append((float((rank <= 10).mean()), float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0).mean())))
    with capsys.disabled():
        print(f"\n{name}, {tokens} events read: HR@10, NDCG@10 without {found[0]}, with attributes {found[1]}")
    assert found[1] > found[0]
