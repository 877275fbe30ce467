"""Every strategy does what it says: a small version that knows short steps learns from users with longer ones."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recurra.engine.config import STRATEGY_NAMES, Config, TrainingConfig
from recurra.engine.errors import ConfigError
from recurra.engine.model import StreamingModel
from recurra.engine.training import (
    STRATEGIES,
    FitData,
    Learner,
    UserLog,
    create_strategy,
    cross_version_recall,
    fit,
    pack,
    vectors_before,
)
from recurra.engine.training.loss import targets, window_loss
from recurra.engine.training.strategies.average import Average
from recurra.engine.training.strategies.base import FitContext, StepContext
from recurra.engine.training.strategies.lora import LoRA
from recurra.engine.training.windows import Windows, all_windows, last_windows

Stream = Callable[..., UserLog]
_OLD = 800
_ITEMS = 31


class Scene:
    """A parent version of 30 items, and a log in which other users and one more item come."""

    def __init__(self, stream: Stream, config: Config) -> None:
        self.config = config.training
        old, new = stream(_OLD), stream(400, step=7, seed=3)
        items = np.where(new.seqs % 10 == 0, 30, new.items)
        self.log = UserLog.of(
            np.concatenate((old.users, 20 + new.users)),
            np.concatenate((old.items, items)),
            np.concatenate((old.times_ms, 10**8 + new.times_ms)),
            np.concatenate((old.seqs, _OLD + new.seqs)),
        )
        self.anchor, self.rows = config.store.anchor, np.arange(_ITEMS)
        self.nobody = Windows(np.empty(0, np.int64), np.empty(0, np.int64))
        self.parent = StreamingModel(config.model, 30)
        first = FitData(old, np.arange(30), all_windows(old, self.anchor), self.nobody, -1)
        fit(self.parent, first, self.config, tokens=20_000, rate=1e-2, rng=np.random.default_rng(0))
        self.old = all_windows(old, self.anchor)
        self.old_log = old
        self._fitted: dict[str, StreamingModel] = {}

    def data(self) -> FitData:
        recent = last_windows(self.log, _OLD - 1, self.anchor)
        return FitData(
            self.log, self.rows, recent, self.nobody, _OLD - 1, self.parent, all_windows(self.log, self.anchor)
        )

    def next(self, strategy: str, *, effort: float = 1.0, **options: float) -> StreamingModel:
        """Return the version that a strategy makes, the same object for the same arguments."""
        key = f"{strategy} {effort} {options}"
        if key not in self._fitted:
            part = strategy.split("+")[-1]
            config = msgspec.structs.replace(
                self.config, strategy=strategy, strategy_options={part: options} if options else {}
            )
            model = self.parent.grown(_ITEMS)
            given = create_strategy(config.strategy, config)
            rng = np.random.default_rng(1)
            fit(model, self.data(), config, tokens=8_000, rate=5e-3, rng=rng, strategy=given, effort=effort)
            self._fitted[key] = model
        return self._fitted[key]

    def scores(self, model: StreamingModel) -> torch.Tensor:
        """Return the log-probabilities of the items that the parent knows at all old events."""
        with torch.no_grad():
            hidden = vectors_before(model.eval(), pack(self.old_log, self.old, np.arange(30)))
            return (hidden @ model.item_table()[:30].T).log_softmax(1)


@pytest.fixture(scope="module")
def scene(stream: Stream, config: Config) -> Scene:
    return Scene(stream, config)


def distance(one: StreamingModel, other: StreamingModel) -> float:
    """Return how far the weights are apart that both versions have, item vectors apart."""
    pairs = zip(one.layers.parameters(), other.layers.parameters(), strict=True)
    return float(np.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs)))


def test_names_can_be_composed() -> None:
    assert STRATEGIES == STRATEGY_NAMES
    config = TrainingConfig(strategy="replay+distill+anchor", replay=0.25)
    assert create_strategy(config.strategy, config).share == 0.25
    assert create_strategy("finetune", config).share == 0


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match=r"training\.strategy must be one of finetune, replay.*, got 'replay\+magic'"):
        TrainingConfig(strategy="replay+magic")
    with pytest.raises(ConfigError, match="must be one of"):
        msgspec.structs.replace(Config().training, strategy="")
    with pytest.raises(ConfigError, match=r"strategy_options\.distill: .*'wait'"):
        create_strategy("distill", TrainingConfig(strategy_options={"distill": {"wait": 1.0}}))
    with pytest.raises(ConfigError, match="one kind of replay once"):
        create_strategy("replay+replay-corrected", TrainingConfig())


@pytest.mark.parametrize("name", [*STRATEGIES, "replay+distill+anchor+compatible"])
def test_all_learn_what_is_new_and_repeat_exactly(scene: Scene, name: str) -> None:
    config = msgspec.structs.replace(scene.config, strategy=name)
    losses, models = [], []
    for _ in range(2):
        model = scene.parent.grown(_ITEMS)
        rng = np.random.default_rng(1)
        given = create_strategy(name, config)
        losses.append(fit(model, scene.data(), config, tokens=1_500, rate=5e-3, rng=rng, strategy=given).loss)
        models.append(model.state_dict())
    assert losses[0] == losses[1]
    for key, tensor in models[0].items():
        assert torch.equal(tensor, models[1][key]), key
    recent = pack(scene.log, scene.data().recent, scene.rows)

    def loss(model: StreamingModel) -> float:
        chosen = targets(recent, model.items, counted=scene.log.seqs[recent.rows] >= _OLD)
        with torch.no_grad():
            return float(window_loss(model.eval(), model.item_table(), recent, chosen))

    assert loss(model) < loss(scene.parent.grown(_ITEMS)) - 0.1


def test_replay_remembers(scene: Scene) -> None:
    parent = scene.scores(scene.parent)
    plain, replayed = (
        F.kl_div(scene.scores(scene.next(name)), parent, log_target=True, reduction="batchmean")
        for name in ("finetune", "replay")
    )
    assert replayed < 0.5 * plain


def test_new_events_change_directions_only(scene: Scene) -> None:
    # one window of new events, one of old ones: the lengths' gradients are those of the old one alone
    data = scene.data()
    strategy = create_strategy("replay-corrected", scene.config)
    model = scene.parent.grown(_ITEMS).eval()
    new = pack(scene.log, data.recent.take(np.array([-1])), scene.rows)
    old = pack(scene.log, scene.old.take(np.array([0])), scene.rows)
    fit(model, data, scene.config, tokens=1, rate=0.0, rng=np.random.default_rng(0), strategy=strategy)

    def gradient(batch: Any, *, corrected: bool) -> torch.Tensor:
        table = model.item_table().detach().requires_grad_()
        chosen = targets(batch, model.items)
        angular = strategy.angular(batch) if corrected else None
        loss = window_loss(model.eval(), table, batch, chosen, angular=angular) * len(chosen.events)
        return torch.autograd.grad(loss, table)[0]

    directions = F.normalize(model.item_table().detach(), dim=1)

    def along(values: torch.Tensor) -> torch.Tensor:
        return (values * directions).sum(1)

    assert bool((scene.log.seqs[new.rows] >= _OLD).all())
    plain, corrected = gradient(new, corrected=False), gradient(new, corrected=True)
    assert along(plain).abs().max() > 0.05
    assert along(corrected).abs().max() < 1e-5
    torch.testing.assert_close(corrected, plain - along(plain)[:, None] * directions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(old, corrected=True), gradient(old, corrected=False), rtol=1e-4, atol=1e-6)
    both = pack(scene.log, scene.old.take(np.array([0])).join(data.recent.take(np.array([-1]))), scene.rows)
    torch.testing.assert_close(
        gradient(both, corrected=True), gradient(old, corrected=False) + corrected, rtol=1e-4, atol=1e-5
    )


def test_the_parent_models_vectors_are_for_the_same_times(scene: Scene) -> None:
    batch = pack(scene.log, scene.data().recent, np.minimum(scene.rows, 29))
    flags = (np.arange(len(batch.offsets) - 1) % 2 == 0)[batch.windows]
    table = scene.parent.item_table()
    seen: list[StepContext] = []

    def term(*given: Any) -> None:
        batch, events, query_time, vectors, table = given
        seen.append(StepContext(batch, events, query_time, vectors, table, scene.parent))

    window_loss(scene.parent.eval(), table, batch, targets(batch, 30), query_time=flags, term=term)
    torch.testing.assert_close(seen[0].parent_vectors, seen[0].vectors.detach())
    window_loss(scene.parent, table, batch, targets(batch, 30), term=term)
    torch.testing.assert_close(seen[1].parent_vectors, seen[1].vectors.detach())
    assert not torch.equal(seen[0].parent_vectors, seen[1].parent_vectors)


def test_distillation_keeps_the_parent_models_scores(scene: Scene) -> None:
    parent = scene.scores(scene.parent)
    found = {
        options: float(F.kl_div(scene.scores(scene.next(*options)), parent, log_target=True, reduction="batchmean"))
        for options in (("finetune",), ("distill",), ("replay",), ("replay+distill",))
    }
    assert found[("distill",)] < 0.8 * found[("finetune",)]
    assert found[("replay+distill",)] < 0.7 * found[("replay",)]


def test_after_a_fall_of_quality_distillation_hardly_holds(scene: Scene) -> None:
    parent = scene.scores(scene.parent)
    plain, held, loose = (
        float(F.kl_div(scene.scores(model), parent, log_target=True, reduction="batchmean"))
        for model in (scene.next("finetune"), scene.next("distill"), scene.next("distill", effort=4.0))
    )
    assert held < loose < 1.1 * plain
    assert loose > held + 0.5 * (plain - held)


def test_relations_alone_keep_users_near_their_kinds_of_items(scene: Scene) -> None:
    # ten kinds of three items or so: where old users stand among them
    batch = pack(scene.old_log, scene.old, np.arange(30))
    plain, kept = scene.next("finetune"), scene.next("distill", weight=0.0, relations=2.0)
    with torch.no_grad():
        kinds = F.normalize(scene.parent.item_table(), dim=1) @ torch.randn(
            16, 10, generator=torch.Generator().manual_seed(0)
        )
        kind = kinds.argmax(1)

        def relations(model: StreamingModel) -> torch.Tensor:
            means = torch.stack([model.item_table()[:30][kind == k].mean(0) for k in sorted(set(kind.tolist()))])
            return F.normalize(vectors_before(model.eval(), batch), dim=1) @ F.normalize(means, dim=1).T

        parent = relations(scene.parent)
        moved = [(relations(model) - parent).square().mean() for model in (plain, kept)]
    assert moved[1] < 0.7 * moved[0]


def test_the_anchor_holds_the_weights(scene: Scene) -> None:
    plain = distance(scene.next("finetune"), scene.parent)
    pulled = distance(scene.next("anchor", pull=30.0), scene.parent)
    averaged = distance(scene.next("average", reach=0.5), scene.parent)
    assert pulled < 0.9 * plain
    assert averaged < 0.9 * plain
    # without both it is plain fine-tuning, bit by bit
    assert distance(scene.next("anchor", pull=0.0), scene.next("finetune")) == 0
    assert distance(scene.next("average", reach=0.0), scene.next("finetune")) == 0
    # a new item is free to find its place
    fresh = scene.parent.grown(_ITEMS).embedding[30]
    moved = [(scene.next(*name).embedding[30] - fresh).norm() for name in (("finetune",), ("anchor",))]
    assert moved[1] > 0.5 * moved[0]


def test_a_strong_pull_is_bounded_by_the_parents_weights(scene: Scene) -> None:
    assert distance(scene.next("anchor", pull=1e9), scene.parent) == 0


def test_projected_maps_give_what_they_gave(scene: Scene) -> None:
    def moved(model: StreamingModel) -> float:
        """Return how much the first map's outputs at the parent model's own inputs moved."""
        seen: list[torch.Tensor] = []
        linear = scene.parent.layers[0].get_submodule("in_proj")
        hook = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        batch = pack(scene.old_log, scene.old, np.arange(30))
        with torch.no_grad():
            scene.parent.eval().encode(
                *map(torch.from_numpy, (batch.items, batch.times_ms, batch.offsets)), backend="chunk"
            )
            hook.remove()
            other = model.layers[0].get_submodule("in_proj")
            return float((other(seen[0]) - linear(seen[0])).square().mean())

    plain, projected = moved(scene.next("finetune")), moved(scene.next("nullspace"))
    assert 0 < projected < 0.1 * plain
    ours = scene.next("nullspace").layers[0]
    for name in ("A_log", "conv_weight", "dt_bias", "D", "gate_norm"):
        assert torch.equal(getattr(ours, name), getattr(scene.parent.layers[0], name)), name
    assert not torch.equal(ours.get_parameter("in_proj.weight"), scene.parent.layers[0].get_parameter("in_proj.weight"))


def test_adapters_are_all_that_changes(scene: Scene) -> None:
    model, start = scene.next("lora", rank=3), scene.parent.grown(_ITEMS)
    changed = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        difference = (parameter - changed[name]).detach()
        if name.endswith(("in_proj.weight", "out_proj.weight", "ffn_in.weight", "ffn_out.weight")):
            assert torch.linalg.matrix_rank(difference, atol=1e-4) == 3, name
        elif name == "embedding":
            assert torch.linalg.matrix_rank(difference[:30], atol=1e-4) == 3
            assert difference[30].norm() > 0.1
            assert not difference[31:].any()
        else:
            assert not difference.any(), name


def test_adapters_are_merged_exactly_and_follow_the_chain_rule(scene: Scene) -> None:
    model, strategy = scene.parent.grown(_ITEMS), LoRA(rank=2)
    fit(model, scene.data(), scene.config, tokens=500, rate=1e-2, rng=np.random.default_rng(0), strategy=strategy)
    for given in strategy._adapters:
        merged = given.weight.detach()[: len(given.base)]
        torch.testing.assert_close(merged, given.base + given.left @ given.right, rtol=0, atol=1e-6)
        # the gradient of a function of the merged weight, by torch and by hand
        left, right = given.left.detach().requires_grad_(), given.right.detach().requires_grad_()
        slope = torch.randn(given.weight.shape, generator=torch.Generator().manual_seed(0))
        want = torch.autograd.grad(((given.base + left @ right) * slope[: len(given.base)]).sum(), (left, right))
        given.weight.grad = slope
        given.gradients()
        torch.testing.assert_close(given.left.grad, want[0])
        torch.testing.assert_close(given.right.grad, want[1])
    # the parent version was not touched
    assert torch.equal(strategy._adapters[0].base, dict(scene.parent.named_parameters())["embedding"][:30])


def recall(scene: Scene, model: StreamingModel, k: int = 5) -> float:
    windows = last_windows(scene.log, -1, scene.anchor)
    return cross_version_recall(scene.parent, model, scene.log, windows, scene.rows, k=k)


def test_compatible_versions_are_searched_by_old_vectors(scene: Scene) -> None:
    plain, aligned = recall(scene, scene.next("finetune")), recall(scene, scene.next("compatible"))
    assert aligned > plain + 0.1


def test_cross_version_recall_by_hand(scene: Scene) -> None:
    # scores of opposite sign: the best five of thirty are the worst five
    other = scene.parent.grown(_ITEMS)
    windows = last_windows(scene.old_log, -1, scene.anchor)
    assert cross_version_recall(scene.parent, other, scene.old_log, windows, scene.rows, k=5) == 1.0
    flipped = scene.parent.grown(30)
    with torch.no_grad():
        flipped.layers[-1].get_parameter("ffn_norm.weight").neg_()
        flipped.layers[-1].get_parameter("ffn_norm.bias").neg_()
    assert cross_version_recall(flipped, other, scene.old_log, windows, scene.rows, k=5) == 0.0
    # the fifteen best of thirty and the other fifteen have nothing in common, all thirty everything
    assert cross_version_recall(flipped, other, scene.old_log, windows, scene.rows, k=15) == 0.0
    assert cross_version_recall(flipped, other, scene.old_log, windows, scene.rows, k=30) == 1.0


def test_threads_and_sampling_leave_a_strategy_what_it_is(scene: Scene) -> None:
    name = "replay-corrected+distill+compatible"
    for threads, changes in ((2, {}), (1, {"sampled_above": 20, "negatives": 24}), (1, {"query_time_share": 0.5})):
        config = msgspec.structs.replace(scene.config, threads=threads, **changes)
        model = scene.parent.grown(_ITEMS)
        given = create_strategy(name, config)
        found = fit(model, scene.data(), config, tokens=2_000, rate=5e-3, rng=np.random.default_rng(1), strategy=given)
        assert np.isfinite(found.loss)
        assert recall(scene, model) > recall(scene, scene.next("finetune"))


def test_a_learner_alone_takes_a_strategy(scene: Scene) -> None:
    # what is measured while training is what would be left at the end
    model = scene.parent.grown(_ITEMS)
    strategy, rng = Average(reach=1.0), np.random.default_rng(0)
    strategy.begin(FitContext(model, scene.parent, scene.log, scene.rows, scene.old, _OLD - 1, 4, scene.config, rng))
    learner = Learner(
        model, scene.config, rate=1e-2, shape=lambda _: 1.0, rng=rng, strategy=strategy, parent=scene.parent
    )
    path = [model.layers[0].get_parameter("out_proj.weight").detach().clone()]
    for _ in range(4):
        learner.step(pack(scene.log, scene.old, scene.rows))
        path.append(model.layers[0].get_parameter("out_proj.weight").detach().clone())
    mean = path[0]
    for weight in path[1:]:
        mean = mean + (weight - mean) / 4
    with strategy.shown():
        torch.testing.assert_close(model.layers[0].get_parameter("out_proj.weight").detach(), mean)
    assert torch.equal(model.layers[0].get_parameter("out_proj.weight").detach(), path[-1])
    strategy.end()
    torch.testing.assert_close(model.layers[0].get_parameter("out_proj.weight").detach(), mean)
