"""The command that evaluates a model offline: evaluate."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import CatalogueFile, one_of, read_catalogue
from .output import Json, Quiet, duration, progress, say, say_catalogue, table, write_json

if TYPE_CHECKING:
    from recurra import Config
    from recurra.connectors.catalogue import Catalogue

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command(epilog="Example: recurra evaluate ml-100k.inter --model streaming --seed 1 --json result.json")(
        evaluate
    )


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file of events, or a directory with one.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="streaming, paper, sasrec, gru4rec, popularity or item-knn.")
    ] = "streaming",
    catalogue: CatalogueFile = None,
    protocol: Annotated[str, typer.Option(metavar="NAME", help="loo: leave one out. ader: period by period.")] = "loo",
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ader: the strategy, or joint: trained from scratch each time."),
    ] = None,
    periods: Annotated[str, typer.Option(metavar="LIST", help="ader: test these only: 1-6 or 4,8,16.")] = "",
    exemplars: Annotated[
        int, typer.Option(metavar="N", min=0, help="ader: targets of earlier periods that may be learnt again.")
    ] = 30_000,
    time: Annotated[str, typer.Option(metavar="on|off", help="Let the model see the times of events.")] = "on",
    max_len: Annotated[int, typer.Option(metavar="L", min=2, help="Events of a user that the model reads.")] = 200,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many passes.")] = 100,
    minutes: Annotated[float | None, typer.Option(metavar="M", min=0.0, help="At most so many minutes.")] = None,
    patience: Annotated[int, typer.Option(metavar="N", min=1, help="Validations without a better one.")] = 10,
    every: Annotated[int, typer.Option(metavar="K", min=1, help="Validate after every K-th epoch.")] = 1,
    ties: Annotated[
        str, typer.Option(metavar="permute|file", help="Order in which events of a user at one time are learnt.")
    ] = "permute",
    seen_weight: Annotated[
        float, typer.Option(metavar="W", min=0.0, help="Weight in training of what the user had, as a negative.")
    ] = 1.0,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to train.")] = "cpu",
    format: Annotated[str, typer.Option(metavar="NAME", help="auto, inter, dat, csv, parquet or jsonl.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that may compute.")] = 1,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A recurra.toml: [model], [training].")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep every epoch or period here; a stopped run goes on from it."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="ader: write a page with plots and the JSON.")
    ] = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a data set and test it offline, all items ranked."""
    import msgspec

    import recurra
    from recurra.engine.config import MODEL_NAMES
    from recurra.engine.devices import device_of
    from recurra.engine.errors import InputError
    from recurra.simulations.datasets import load
    from recurra.simulations.offline import COUNTING, evaluate_counting
    from recurra.simulations.offline import evaluate as run

    one_of("--model", model, (*MODEL_NAMES, *COUNTING))
    one_of("--protocol", protocol, ("loo", "ader"))
    one_of("--ties", ties, ("permute", "file"))
    one_of("--time", time, ("on", "off"))
    one_of("--device", device, ("cpu", "cuda"))
    device_of(device, name="--device")
    if protocol == "ader":
        if model != "streaming":
            raise InputError(f"--protocol ader is for --model streaming, the one that goes on, got {model}")
        if catalogue not in (None, "none"):
            raise InputError("--protocol ader reads ids alone; --catalogue is for --protocol loo")
        _ader(path, strategy, periods, exemplars, seed, config, checkpoint, report, json, quiet=quiet)
        return
    settings = recurra.load_config(config)
    stream = load(path, format, fields=settings.events)
    records = _records(path, catalogue, model, settings, json)
    if not stream.clock and time == "on" and model in ("streaming", "paper"):
        say(f"{stream.name} has an order and no times: the model is trained without them", json)
    if model in COUNTING:
        result = evaluate_counting(stream, model, seed=seed)
    else:
        use_time = time == "on"
        query_time = use_time and settings.model.query_time
        shape = msgspec.structs.replace(
            settings.model, name=model, time=use_time, query_time=query_time, max_length=max_len
        )
        try:
            with progress(f"{stream.name}, {model}", quiet=quiet) as bar:
                result = run(
                    stream,
                    catalogue=records,
                    config=msgspec.structs.replace(settings, model=shape),
                    max_len=max_len,
                    epochs=epochs,
                    minutes=minutes,
                    patience=patience,
                    every=every,
                    permute_ties=ties == "permute",
                    seen_weight=seen_weight,
                    device=device,
                    seed=seed,
                    threads=threads,
                    checkpoint=checkpoint,
                    progress=lambda done, total, now: bar(done, total, f"validation NDCG@10 {now['ndcg@10']:.4f}"),
                )
        except ValueError as error:
            raise InputError(str(error)) from None
    write_json(result, json)
    if json != "-":
        _print(result)


def _records(path: Path, catalogue: str | None, model: str, settings: "Config", json: str | None) -> "Catalogue | None":
    """Return the catalogue if the model reads one; a file that is named must be readable all the same."""
    from recurra.simulations.offline import reads_attributes

    reads = reads_attributes(model, settings.model.attributes)
    if not reads and catalogue is None:
        return None
    records = read_catalogue(path, catalogue, settings.events)
    if records is not None and not reads:
        why = "model.attributes is 0" if model == "streaming" else f"{model} reads ids alone"
        say(f"the catalogue {records.name} is not used: {why}", json)
        return None
    return records


def _ader(
    path: Path,
    strategy: str | None,
    periods: str,
    exemplars: int,
    seed: int,
    config: Path | None,
    checkpoint: Path | None,
    report: Path | None,
    json: str | None,
    *,
    quiet: bool,
) -> None:
    import recurra
    from recurra.simulations.ader import evaluate, protocol_config
    from recurra.simulations.ader_report import write_ader_report
    from recurra.simulations.datasets import load

    stream = load(path)
    with progress(stream.name, quiet=quiet) as bar:
        result = evaluate(
            stream,
            config=protocol_config() if config is None else recurra.load_config(config),
            strategy=strategy,
            periods=_numbers(periods),
            exemplars=exemplars,
            seed=seed,
            checkpoint=checkpoint,
            progress=lambda done, total, now: bar(done, total, f"Recall@20 {now.get('recall@20', 0):.4f}"),
        )
    if report is not None:
        say(f"wrote {write_ader_report(result, report)}", json)
    write_json(result, json)
    if json != "-":
        facts = f"{result['events']:,} events, {result['items']:,} items, seed {seed}"
        say(f"{result['dataset']}, {result['strategy']}: {facts}")
        names = ("recall@20", "recall@10", "mrr@20")
        rows = [
            (str(entry.get("period", "mean")), *(f"{entry[name]:.4f}" for name in names), f"{entry['seconds']:.0f}")
            for entry in (*result["periods"], result["mean"])
        ]
        table(rows, ("period", "Recall@20", "Recall@10", "MRR@20", "seconds"))
        alone = result["mean"]["without_bonus"]["recall@20"]
        say(f"mean Recall@20 without the bonus for what a session had before: {alone:.4f}")


def _numbers(text: str) -> list[int] | None:
    """Return the numbers of a list such as 1-6 or 4,8,16; None for an empty one."""
    from recurra.engine.errors import InputError

    found: list[int] = []
    for part in text.split(",") if text else ():
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if bounds is None:
            raise InputError(f"--periods expects numbers such as 1-6 or 4,8,16, got {text!r}")
        found += range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1)
    return found or None


def _print(result: dict[str, Any]) -> None:
    say(
        f"{result['dataset']}: {result['events']:,} events of {result['users']:,} users and {result['items']:,} items, "
        f"leave one out, seed {result['seed']}, {duration(result['seconds'])}"
    )
    say_catalogue(result)
    if "best_epoch" in result:
        say(
            f"{result['model']}, {result['parameters']:,} parameters: best of {result['epochs']} epochs is "
            f"{result['best_epoch']}, {result['train_events_per_s']:,} events/s in training"
        )
    names = {
        "valid": "validation",
        "test": "test",
        "test_masked": "test, history masked",
        "test_query_time": "test, time of the query known",
    }
    rows = [
        (label, *(f"{result[key][name]:.4f}" for name in ("hr@10", "hr@20", "ndcg@10", "mrr@10")))
        for key, label in names.items()
        if key in result
    ]
    table(rows, ("", "HR@10", "HR@20", "NDCG@10", "MRR@10"))
