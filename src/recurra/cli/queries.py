"""Commands over what the engine knows: recommend, similar, history, forget, digest, audit."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .connect import ConfigFile, Data, Url, opened, require_store
from .output import Json, Quiet, progress, say, table, write_json

if TYPE_CHECKING:
    from recurra import MixWeights, Recommendation

__all__ = ["add_to"]

User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
K = Annotated[int, typer.Option("-k", metavar="N", help="How many items.")]
Where = Annotated[str | None, typer.Option(metavar="EXPR", help="Only items whose attributes match.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command(epilog="Example: recurra recommend ann -k 5 --where \"'Drama' in categories\" --explain")(recommend)
    app.command(epilog="Example: recurra similar m1 -k 5 --url http://127.0.0.1:8000")(similar)
    app.command(epilog="Example: recurra history ann --data recurra-data --json -")(history)
    app.command(epilog="Example: recurra forget ann --data recurra-data")(forget)
    app.command(epilog="Example: recurra digest --data recurra-data")(digest)
    app.command(epilog="Example: recurra audit --data recurra-data --source kafka://127.0.0.1:9092/plays")(audit)


def recommend(
    user: User,
    k: K = 10,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Answer for this time: ms or RFC 3339.")] = None,
    where: Where = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each part of the engine gave.")] = False,
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Print the next items of a user, best first."""
    from recurra.connectors.http.wire import time_ms

    at_ms = None if at is None else time_ms(at)
    with opened(data, url, config) as engine:
        answer = engine.recommend(user, k, at=at_ms, where=where, explain=explain)
    _print_answer(answer, json)


def similar(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="The item's id.")],
    k: K = 10,
    where: Where = None,
    data: Data = None,
    url: Url = None,
    config: ConfigFile = None,
    json: Json = None,
) -> None:
    """Print the items most like one."""
    with opened(data, url, config) as engine:
        answer = engine.similar(item, k, where=where)
    _print_answer(answer, json)


def history(user: User, data: Data = None, url: Url = None, config: ConfigFile = None, json: Json = None) -> None:
    """Print the kept events of a user, oldest first."""
    with opened(data, url, config) as engine:
        entries = engine.history(user)
    if json is None:
        rows = [(_moment(entry.time_ms), entry.item, entry.title, entry.type, entry.weight) for entry in entries]
        table(rows, ("time", "item", "title", "type", "weight"))
    write_json({"user": user, "events": entries}, json)


def forget(user: User, data: Data = None, url: Url = None, config: ConfigFile = None, json: Json = None) -> None:
    """Erase everything that is kept of a user."""
    from recurra.engine.errors import UnknownUserError

    with opened(data, url, config, write=True) as engine:
        forgotten = engine.forget(user)
    write_json({"user": user, "forgotten": forgotten}, json)
    if not forgotten:
        raise UnknownUserError(f"nothing is kept of a user {user!r}")
    say(f"erased the history, the seen set and the log entries of {user}", json)


def digest(data: Data = None, url: Url = None, json: Json = None) -> None:
    """Print a SHA-256 over the records of all users, the same for the same events however they came."""
    value = _digest_of_store(data) if url is None else _digest_of_service(data, url)
    if json is None:
        say(value)
    write_json({"digest": value}, json)


def _digest_of_store(data: Path | None) -> str:
    from recurra.engine.store import Reader

    with Reader.open(require_store(data) / "store") as store:
        return store.digest()


def _digest_of_service(data: Path | None, url: str) -> str:
    import recurra
    from recurra.engine.errors import ConfigError

    if data is not None:
        raise ConfigError("--data and --url exclude each other: give one of them")
    with recurra.Client(url) as client:
        return client.digest()


def audit(
    source: Annotated[str, typer.Option(metavar="SOURCE", help="kafka://HOST:PORT/TOPIC or the file that was read.")],
    data: Data = None,
    config: ConfigFile = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Recompute every user's record from the source up to the stored offsets, and compare."""
    import recurra
    from recurra.connectors.audit import audit as run_audit

    path = require_store(data)
    with progress("reading the source", quiet=quiet) as report:
        result = run_audit(
            path,
            source,
            recurra.load_config(config),
            progress=lambda done, total: report(done, total, "reading the source"),
        )
    write_json(result, json)
    verdict = "nothing differs" if result.ok else "DIFFERENT"
    say(
        f"{result.users} users, {result.events} events: {result.wrong_users} users wrong, "
        f"{result.missing} events missing, {result.repeated} repeated: {verdict}",
        json,
    )
    if not result.ok:
        raise typer.Exit(1)


def _print_answer(answer: "Recommendation", json: str | None) -> None:
    if json is None:
        titles = answer.titles or [None] * len(answer.items)
        parts = sorted({name for item in answer.explain or () for name in item})
        rows: list[list[object]] = []
        for rank, (item, title, score) in enumerate(zip(answer.items, titles, answer.scores, strict=True), 1):
            explained = [_number(answer.explain[rank - 1].get(part)) for part in parts] if answer.explain else []
            rows.append([rank, item, title, _number(score), *explained])
        table(rows, ("", "item", "title", "score", *parts))
        version = f"version {answer.version}" if answer.version else "without the model"
        say(f"answered by {answer.source}, {version}")
        for note in answer.notes:
            say(f"note: {note}")
        if answer.weights:
            _print_weights(answer.weights)
    write_json(answer, json)


def _print_weights(weights: "MixWeights") -> None:
    say(f"scores of: {weights.answered} (the part with the best recent NDCG@10 answers, or the combination of all)")
    best = sorted((entry for entry in weights.evidence.items() if entry[1] > 0), key=lambda entry: -entry[1])
    shown = ", ".join(f"{name} {value:.4f}" for name, value in best) or "nothing learnt yet"
    say(f"recent NDCG@10: {shown}")
    pairs = ", ".join(f"{name} {log:+.2f} {share:+.2f}" for name, (log, share) in weights.shared.items())
    say(f"weights in the combination, of logarithms and shares: {pairs}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _moment(time_ms: int) -> str:
    return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
