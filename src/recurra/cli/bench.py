"""Benchmarks: each prints ours beside its peer, measured in one run."""

from typing import Annotated

import typer

from .options import one_of
from .output import Json, Quiet, progress, say, write_json

__all__ = ["app"]

Threads = Annotated[int, typer.Option(min=1, help="Threads that may compute.")]

app = typer.Typer(
    help="Measure this machine: ours beside its peer, in one run.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example: recurra bench step --threads 1 --json step.json")
def step(
    slab: Annotated[int, typer.Option(min=1_024, metavar="USERS", help="Users whose states are held.")] = 100_000,
    state_dtype: Annotated[str, typer.Option(metavar="DTYPE", help="float32 or bfloat16.")] = "float32",
    threads: Threads = 1,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Advancing states by one event, against re-encoding 200 events with SASRec."""
    from recurra.simulations.bench.step import bench_step

    with progress("bench step", quiet=quiet) as report:
        result = bench_step(
            slab=slab, state_dtype=state_dtype, threads=threads, progress=lambda words: report(0, 0, words)
        )
    write_json(result, json)
    for batch, figures in result["batch"].items():
        say(f"batch {batch}: {figures['us_per_event']:.2f} us an event, {figures['events_per_s']:,.0f} events/s", json)
    say(f"re-encoding 200 events: {result['reencode_200']['us_per_event']:,.0f} us an event", json)
    say(f"ratio at batch 256: {result['ratio_256']:.0f}, at batch 1: {result['ratio_1']:.1f}", json)


@app.command(epilog="Example: recurra bench encode --threads 1 --json encode.json")
def encode(
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, or a CUDA device.")] = "cpu",
    threads: Threads = 1,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Encoding whole histories, against SASRec over 50 and 200 events and a step of plain torch."""
    import torch

    from recurra.engine.errors import InputError
    from recurra.simulations.bench import bench_encode

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f"encoding is timed on the CPU or on a CUDA device, and {device!r} is neither here")
    with progress("bench encode", quiet=quiet) as report:
        result = bench_encode(device=device, threads=threads, progress=lambda words: report(0, 0, words))
    write_json(result, json)
    for group in ("ours", "peers"):
        for name, batches in result[group].items():
            for batch, figures in batches.items():
                unit = next(key for key in figures if key.startswith("us_per_"))
                words = unit.removeprefix("us_per_").replace("_", " ")
                say(f"{group}, {name}, batch {batch}: {figures[unit]:,.2f} us per {words}", json)
    say(f"times a history of 200: {result['ratio_256']:.1f} at batch 256, {result['ratio_1']:.1f} at batch 1", json)


@app.command(epilog="Example: recurra bench ingest --source memory --train off")
def ingest(
    source: Annotated[str, typer.Option(metavar="kafka|memory", help="Where the events come from.")] = "memory",
    broker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A Kafka broker. [127.0.0.1:9092]")] = None,
    train: Annotated[str, typer.Option(metavar="on|off", help="Train in the background meanwhile.")] = "off",
    stream_rate: Annotated[float, typer.Option(min=0.001, help="Events per second, by their times.")] = 12_000.0,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Taking in events, durable, with states and memories on; and how soon they are visible."""
    from recurra.simulations.bench.ingest import bench_ingest

    one_of("--train", train, ("on", "off"))
    with progress("bench ingest", quiet=quiet):
        result = bench_ingest(source, train == "on", broker, stream_rate=stream_rate)
    write_json(result, json)
    say(
        f"{result['source']}: {result['events_per_s']:,.0f} events/s, {result['cpu_us_per_event']:.1f} us of CPU an "
        f"event, visible after {result['visible_ms_p50']:.0f} ms (median), {result['visible_ms_p99']:.0f} ms (p99)",
        json,
    )


@app.command(epilog="Example: recurra bench query --items 50000 --http")
def query(
    items: Annotated[int, typer.Option(min=10, help="Size of the catalogue.")] = 50_000,
    http: Annotated[bool, typer.Option("--http", help="Over HTTP instead of in process.")] = False,
    connections: Annotated[int | None, typer.Option(min=1, help="Who asks at the same time. [1; --http: 4]")] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="cuda: the search alone, beside the CPU's.")] = "cpu",
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Answering recommendations; or the search of items alone, by the indexes of a GPU beside those of the CPU."""
    one_of("--device", device, ("cpu", "cuda"))
    if device == "cuda":
        _search(items, json, quiet)
        return
    from recurra.simulations.bench.query import bench_query

    with progress("bench query", quiet=quiet):
        result = bench_query(items=items, http=http, connections=connections)
    write_json(result, json)
    say(
        f"{result['items']:,} items, {'HTTP' if http else 'in process'}, {result['connections']} connections: "
        f"{result['qps']:,.0f} queries/s, {result['p50_ms']:.2f} ms (median), {result['p99_ms']:.2f} ms (p99)",
        json,
    )
    if not http:
        say(
            f"CPU per query: {result['cpu_us']:.0f} us, {result['search_us']:.0f} of them inside the indexes, "
            f"{result['cpu_us_beside_search']:.0f} beside (medians)",
            json,
        )


def _search(items: int, json: str | None, quiet: bool) -> None:
    from recurra.simulations.bench.search import bench_search

    with progress("bench query", quiet=quiet):
        result = bench_search(items)
    write_json(result, json)
    for name, figures in result["indexes"].items():
        one, many = figures["batch_1"], figures["batch_256"]
        say(
            f"{name}: recall {figures['recall']:.4f}; one by one {one['qps']:,.0f} queries/s, {one['p50_ms']:.3f} ms "
            f"(median), {one['p99_ms']:.3f} ms (p99); 256 at a time {many['qps']:,.0f} queries/s",
            json,
        )


@app.command(epilog="Example: recurra bench hostile --items 100000 --json hostile.json")
def hostile(
    items: Annotated[int, typer.Option(min=10, help="Size of the catalogue.")] = 100_000,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Answering lists and liveness beside clients that send dear filters, unfinished bodies and trainings."""
    from recurra.simulations.bench.hostile import bench_hostile

    with progress("bench hostile", quiet=quiet):
        result = bench_hostile(items)
    write_json(result, json)
    for name in ("quiet", "attacked"):
        one = result[name]
        say(
            f"{name}: query {one['query_p50_ms']:.1f} ms (median), {one['query_p99_ms']:.1f} ms (p99); "
            f"/livez {one['livez_p50_ms']:.1f} ms, {one['livez_p99_ms']:.1f} ms",
            json,
        )
    say(f"query p99 {result['query_p99_ratio']:.1f} times; the service grew by {result['grown_mb']:.0f} MB", json)


@app.command(epilog="Example: recurra bench contention --share 0.5 --json contention.json")
def contention(
    share: Annotated[
        float, typer.Option(help="What training may take of its threads' time: above 0, at most 1.")
    ] = 1.0,
    threads: Threads = 1,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """What training in the background takes from queries and from taking in events."""
    from recurra.simulations.bench.contention import bench_contention

    with progress("bench contention", quiet=quiet):
        result = bench_contention(share=share, threads=threads)
    write_json(result, json)
    for name in ("training_off", "training_on"):
        figures = result[name]
        say(
            f"{name.replace('_', ' ')}: a query {figures['query_p50_ms']:.2f} ms (median), "
            f"{figures['query_p99_ms']:.2f} ms (p99); {figures['ingest_events_per_s']:,.0f} events/s; training takes "
            f"{figures['training_processors']:.2f} processors",
            json,
        )
    say(f"p99 of a query times {result['query_p99_ratio']:.2f}, events/s times {result['ingest_ratio']:.2f}", json)


@app.command(epilog="Example: recurra bench memories --json memories.json")
def memories(json: Json = None, quiet: Quiet = False) -> None:
    """Learning the memories from an event; and apart from it scoring for the mixture and learning that."""
    from recurra.simulations.bench.memories import bench_memories

    with progress("bench memories", quiet=quiet):
        result = bench_memories()
    write_json(result, json)
    learn, counting = result["learn_us"], result["learn_us"]["counting"]
    say(
        f"learning an event: {learn['all']:.1f} us of CPU; the counting memories {counting['batch_512']:.1f} in "
        f"batches, {counting['batch_1']:.1f} one by one; the error memory {learn['error']:.1f}",
        json,
    )
    say(f"scoring an event for the mixture and learning it: {result['mixture_us']:.0f} us", json)


@app.command(epilog="Example: recurra bench kernels --device cuda --json kernels.json")
def kernels(
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A CUDA device.")] = "cuda",
    part: Annotated[str, typer.Option(metavar="PART", help="all, bfloat16 or float32 (scan), or step.")] = "all",
    tune: Annotated[bool, typer.Option("--tune", help="Find the fastest launch of the scan first.")] = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """The GPU kernels beside torch, torch compiled and mamba-ssm, and the memory's own speed."""
    import torch

    from recurra.engine.errors import InputError
    from recurra.simulations.bench.kernels import PARTS, bench_kernels

    one_of("--part", part, ("all", *PARTS))
    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise InputError(f"the kernels are timed on a CUDA device, and there is none here that is called {device!r}")
    with progress("bench kernels", quiet=quiet):
        result = bench_kernels(device=device, tune=tune, parts=PARTS if part == "all" else (part,))
    write_json(result, json)
    for name, figures in result.items():
        say(f"{name}: {figures}", json)


@app.command(epilog="Example: recurra bench train --threads 2 --json train.json")
def train(
    items: Annotated[int, typer.Option(min=10, help="Size of the catalogue.")] = 3_416,
    length: Annotated[int, typer.Option(min=2, metavar="L", help="Events of a window.")] = 200,
    threads: Threads = 1,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to train.")] = "cpu",
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Learning the events of whole windows, against learning one event from each padded prefix."""
    from recurra.engine.devices import device_of
    from recurra.simulations.bench.train import bench_train

    one_of("--device", device, ("cpu", "cuda"))
    device_of(device, name="--device")
    with progress("bench train", quiet=quiet) as report:
        result = bench_train(
            items=items,
            length=length,
            threads=threads,
            device=device,
            progress=lambda words: report(0, 0, words),
        )
    write_json(result, json)
    peer = result["peer"]
    say(f"windows of {length}: {result['train_events_per_s']:,.0f} events/s", json)
    say(f"prefixes padded to {length} ({peer['name']}): {peer['train_events_per_s']:,.0f} events/s", json)
    say(f"ratio {result['ratio']:.0f}; {100 * result['limit_share']:.0f} % of the machine's multiply-adds", json)


@app.command(epilog="Example: recurra bench continual --strategy replay,finetune --json continual.json")
def continual(
    strategy: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Strategies, separated by commas. [default, each single]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the stream and of training.")] = 0,
    threads: Threads = 1,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """What strategies of training forget and how soon they adapt, on a stream that changes at once; and alarms."""
    import torch

    from recurra.simulations.bench.continual import bench_continual

    torch.set_num_threads(threads)
    names = None if strategy is None else strategy.split(",")
    with progress("bench continual", quiet=quiet) as report:
        result = bench_continual(names, seed=seed, progress=lambda words: report(0, 0, words))
    write_json(result, json)
    say(f"alarm {result['alarm_events']} events after the change, false alarms: {result['false_alarms']}", json)
    for name, figures in result["strategy"].items():
        adapted = figures["adapt_events"]
        say(
            f"{name}: {100 * figures['old_quality']:.1f} % of joint training on old events, adapted after "
            f"{'more than all' if adapted is None else format(adapted, ',')} events, forgetting "
            f"{figures['forgetting']:+.4f}, cross-version recall@10 {figures['cross_version_recall@10']:.3f}, "
            f"{figures['seconds']:.0f} s",
            json,
        )
