from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recurra.engine.config import ModelConfig
from recurra.engine.errors import VersionError
from recurra.engine.events import Features, Item, item_features
from recurra.engine.model import StepWeights, StreamingModel, load, save

BUCKETS = 50
CONFIG = ModelConfig(d_model=8, layers=1, heads=2, head_dim=4, d_state=4, dropout=0.0, attributes=BUCKETS)
RECORDS = [
    Item("a", "The Silent Harbour", ("Crime", "Drama"), attributes={"year": 1999}),
    None,
    Item("b", None, ("Drama",)),
    Item("c", "Silent Signal", attributes={"tags": ["space", "slow"], "rating": 3.5, "url": "x" * 100}),
    Item("d"),
]


def _buckets(features: Features, item: int) -> set[int]:
    return set(features.buckets[features.starts[item] : features.starts[item + 1]].tolist())


def _model(seed: int = 1, records: list[Item | None] = RECORDS, item_length: float = 0.0) -> StreamingModel:
    torch.manual_seed(seed)
    config = msgspec.structs.replace(CONFIG, item_length=item_length)
    model = StreamingModel(config, len(records), features=item_features(records, BUCKETS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def test_features_are_shared_by_what_items_share() -> None:
    features = item_features(RECORDS, 1 << 40)
    # a rating falls into a bin, an address is no feature
    assert features.counts.tolist() == [6, 0, 1, 5, 0]
    drama = _buckets(features, 2)
    silent = _buckets(item_features([Item("z", "SILENT")], 1 << 40), 0)
    assert drama < _buckets(features, 0)
    assert silent == _buckets(features, 0) & _buckets(features, 3)
    # a year is no word of a title, and its field is part of what it says
    assert _buckets(item_features([Item("z", "1999", attributes={"sold": 1999})], 1 << 40), 0).isdisjoint(
        _buckets(features, 0)
    )


def test_features_are_the_same_on_every_machine() -> None:
    # `printf category=drama | b2sum -l 64`, read as a little-endian number
    hashed = int.from_bytes(bytes.fromhex("bbc4f63dabed5eda"), "little")
    assert item_features([Item("b", None, ("Drama",))], 1_000).buckets.tolist() == [hashed % 1_000]


def test_an_item_is_read_by_its_id_and_the_sum_of_its_buckets() -> None:
    model = _model()
    assert model.attributes is not None
    rows = torch.tensor([[0, 6, 3], [5, 1, 0]])
    got = model.vectors(rows, torch.tensor([[False, False, True], [False, False, False]]))
    table, ids = model.attributes.table, model.embedding
    parts = [
        sum((table[bucket] for bucket in _buckets(item_features([record], BUCKETS), 0)), torch.zeros(8))
        / max(1, len(_buckets(item_features([record], BUCKETS), 0))) ** 0.5
        for record in RECORDS
    ]
    want = [[ids[0] + parts[0], ids[6], ids[5] + parts[3]], [ids[5], ids[1], ids[0] + parts[0]]]
    torch.testing.assert_close(got, torch.stack([torch.stack(row) for row in want]))
    torch.testing.assert_close(model.item_table(), ids[:5] + torch.stack(parts))


def test_training_reads_and_finds_some_items_as_new_ones() -> None:
    model = _model().train()
    model.config = ModelConfig(attributes=BUCKETS, unknown_rate=0.5)
    assert model.attributes is not None
    torch.manual_seed(0)
    as_new = model.attributes(torch.arange(5)) + model.embedding[5]
    lost = (model.item_table() == as_new).all(dim=1)
    assert 0 < int(lost.sum()) < 5
    model.item_table().sum().backward()  # type: ignore[no-untyped-call]
    # buckets that no item has learn nothing
    used = model.attributes.table.grad.abs().sum(dim=1) > 0  # type: ignore[union-attr]
    assert set(torch.nonzero(used).ravel().tolist()) == set(item_features(RECORDS, BUCKETS).buckets.tolist())


@pytest.mark.parametrize("length", [0.0, 2.0])
def test_a_new_item_gets_the_vectors_that_the_model_would_give_it(length: float) -> None:
    new: list[Item | None] = [Item("e", "Harbour Signal", ("Crime",)), None]
    model = _model(item_length=length)
    grown = model.grown(7, features=item_features([*RECORDS, *new], BUCKETS))
    with torch.no_grad():
        # neither of the two has an id part of its own
        grown.embedding[5:7] = model.embedding[5]
    ours, theirs = StepWeights.of(model), StepWeights.of(grown)
    assert ours.new_items is not None
    read, search = ours.new_items.vectors(item_features(new, BUCKETS), ours.norm_eps)
    np.testing.assert_allclose(read, theirs.read_table[5:7], atol=1e-6)
    np.testing.assert_allclose(search, theirs.item_table[5:7], atol=1e-6)
    # and without anything to go by it is the unknown item
    np.testing.assert_allclose(read[1], ours.read_table[5], atol=1e-6)
    # what the model knew before reads as before
    np.testing.assert_allclose(ours.item_table, theirs.item_table[:5], atol=1e-6)


def test_a_version_without_attributes_learns_to_read_them() -> None:
    torch.manual_seed(2)
    old = StreamingModel(msgspec.structs.replace(CONFIG, attributes=0), 5).eval()
    new = old.grown(6, attributes=BUCKETS, features=item_features([*RECORDS, RECORDS[0]], BUCKETS))
    # until it is trained it reads as before
    torch.testing.assert_close(new.item_table()[:5], old.item_table(), rtol=0, atol=0)
    new.item_table().sum().backward()  # type: ignore[no-untyped-call]
    assert new.attributes is not None
    assert new.attributes.table.grad is not None
    assert new.attributes.table.grad.abs().sum() > 0


def test_a_version_outlives_its_catalogue() -> None:
    model = _model()
    without = model.grown(6, features=item_features([None] * 6, BUCKETS))
    assert without.attributes is None
    torch.testing.assert_close(without.item_table()[:5], model.embedding[:5], rtol=0, atol=0)


def test_a_catalogue_that_says_nothing_changes_nothing() -> None:
    items, times_ms = torch.randint(0, 6, (3, 9)), torch.arange(27).reshape(3, 9) * 1_000
    found = []
    for attributes in (0, BUCKETS):
        config = msgspec.structs.replace(CONFIG, attributes=attributes, dropout=0.3)
        model = StreamingModel(config, 5, features=item_features([None] * 5, BUCKETS)).train()
        torch.manual_seed(3)
        loss = (model(items, times_ms) @ model.item_table().T).square().sum()
        loss.backward()
        found.append((loss, model.embedding.grad, torch.rand(1)))
    for without, silent in zip(*found, strict=True):
        assert without is not None
        assert silent is not None
        assert torch.equal(without, silent)


def test_a_version_holds_the_features_of_its_items(tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "w.safetensors"
    save(model, path)
    other = load(path)
    torch.testing.assert_close(other.item_table(), model.item_table(), rtol=0, atol=0)
    assert StepWeights.of(StreamingModel(ModelConfig(), 3)).new_items is None


@pytest.mark.parametrize("change", ["too few", "outside", "backwards"])
def test_features_that_contradict_themselves_are_refused(tmp_path: Path, change: str) -> None:
    model, path = _model(), tmp_path / "w.safetensors"
    save(model, path)
    tensors = load_file(path)
    match change:
        case "too few":
            tensors["attributes.starts"] = tensors["attributes.starts"][1:]
        case "outside":
            tensors["attributes.buckets"][0] = BUCKETS
        case _:
            tensors["attributes.starts"][1] = 99
    config = '{"d_model":8,"layers":1,"heads":2,"head_dim":4,"d_state":4,"attributes":50}'
    save_file(tensors, path, metadata={"format": "1", "items": "5", "config": config})
    with pytest.raises(VersionError, match="features of 5 items among 50 buckets expected"):
        load(path)
