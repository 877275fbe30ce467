"""Pages of docs/reference that are made from the code: command line, HTTP, Python, configuration, metrics.

``python tools/reference.py`` writes them; with ``--check`` it names those that are not current, and fails.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import msgspec
import typer
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

import recurra
from recurra.cli.app import app as command_line
from recurra.cli.template import Setting, parts
from recurra.connectors.http.observed import Observed
from recurra.connectors.http.server import create_app
from recurra.connectors.sampling import SamplingAudit
from recurra.connectors.source_metrics import register_source
from recurra.engine.metrics import Metrics
from recurra.engine.results import SourceHealth

__all__ = ["main", "pages"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- made by tools/reference.py from the code: change the code, then run `make docs` -->"


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "cli.md": _command_line,
        "http.md": _http,
        "python.md": _python,
        "configuration.md": _configuration,
        "metrics.md": _metrics,
    }
    return {name: _page(make()) for name, make in makers.items()}


def _page(parts: Iterator[str]) -> str:
    # the note stands below the title: only a page that begins with its title has it in the navigation
    return "\n\n".join([next(parts), NOTE, *(part.strip("\n") for part in parts)]) + "\n"


def main() -> int:
    """Write the pages, or compare them with what the code says now."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not current")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
    if stale:
        print(f"{'not current' if check else 'written'}: {', '.join(stale)}")
    return 1 if check and stale else 0


# --- command line


def _command_line() -> Iterator[str]:
    yield "# Command line"
    yield (
        "Every command prints its help with `--help`. Exit status: 0 done; 1 it failed and said why in one sentence; "
        "2 it was not understood; 130 interrupted. `--json FILE` writes what was found as JSON (`-`: standard output). "
        "Progress is shown on a terminal only, and `--quiet` hides it."
    )
    yield from _group(typer.main.get_command(command_line), "recurra")


# typer has click's classes in a package of its own or not, by its release: hence Any
def _group(group: Any, name: str) -> Iterator[str]:
    for inner, command in group.commands.items():
        yield f"## {name} {inner}"
        yield command.help or ""
        if hasattr(command, "commands"):
            for part in _group(command, f"{name} {inner}"):
                yield f"#{part}" if part.startswith("## ") else part
            continue
        yield from _command(command, f"{name} {inner}")


def _command(command: Any, name: str) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    # required arguments stand in braces, which a shell would read
    usage = " ".join([name, *command.collect_usage_pieces(context)]).translate({ord("{"): None, ord("}"): None})
    yield f"```text\n{usage.replace('[[', '[').replace(']]', ']')}\n```"
    records = (param.get_help_record(context) for param in command.params)
    yield "\n".join(_parameter(*record) for record in records if record is not None)
    if command.epilog:
        yield f"Example: `{command.epilog.removeprefix('Example: ')}`".replace("     or, as a check: ", "` or `")


_KINDS = {"int": "N", "int range": "N", "float": "X", "float range": "X", "str": "TEXT", "path": "PATH"}


def _parameter(flag: str, words: str) -> str:
    """Return a line of the list of options: ``words`` may end in [default: ...; range], [range] or [required]."""
    name, _, kind = flag.partition(" <")
    if kind and name.startswith("-"):
        name += f" {_KINDS.get(kind.removesuffix('>'), kind.removesuffix('>').upper())}"
    found = re.fullmatch(r"(.*?)(?:\s+\[(default: )?([^][]*)\])?", words)
    assert found is not None
    text, default, rest = found[1], found[2], found[3] or ""
    if rest == "required":
        return f"- `{name}`: {text} Required."
    value, _, limits = rest.partition("; ") if default or "x" not in rest else ("", "", rest)
    ends = [f"Default: `{value}`."] if value else []
    ends += [f"`{limits}`."] if limits else []
    return " ".join([f"- `{name}`: {text}", *ends])


# --- HTTP


def _http() -> Iterator[str]:
    # routes are described without being called: no engine
    without_data: Any = SimpleNamespace(registry=CollectorRegistry(), config=recurra.Config())
    document = create_app(without_data).openapi()
    yield "# HTTP"
    yield (
        "The service of `recurra run` and `recurra demo`. It describes itself: `/docs` is a page to try it on, "
        "`/openapi.json` the document that this page is made from. There is no authentication and no TLS: put a proxy "
        "in front of it before you open it to others. A body has at most 8 MiB and 10,000 records."
    )
    tags: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, routes in document["paths"].items():
        for method, route in routes.items():
            tags.setdefault(route["tags"][0], []).append((method.upper(), path, route))
    for tag, found in tags.items():
        yield f"## {tag.capitalize()}"
        for method, path, route in found:
            yield from _route(method, path, route)
    yield "## Types"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _schema(name, schema)


def _route(method: str, path: str, route: dict[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield _sentence(route["summary"])
    if "description" in route:
        yield route["description"]
    lines = []
    for param in route.get("parameters", ()):
        shape = param["schema"]
        default = f" Default: `{_plain(shape['default'])}`." if "default" in shape else ""
        words = _sentence(param.get("description", "part of the path" if param["in"] == "path" else ""))
        lines.append(f"- `{param['name']}` ({_type(shape)}): {words}{default}".replace(": .", "."))
    if body := route.get("requestBody"):
        lines.append(f"- body: {_type(_content_of(body))}")
    for status, answer in sorted(route["responses"].items()):
        lines.append(f"- answers {status}: {_type(_content_of(answer))}")
    yield "\n".join(lines)


def _content_of(described: dict[str, Any]) -> dict[str, Any]:
    return next((dict(shape.get("schema", {})) for shape in described.get("content", {}).values()), {})


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    if "description" in schema:
        yield _prose(schema["description"])
    rows = []
    required = set(schema.get("required", ()))
    for field, shape in schema.get("properties", {}).items():
        default = "" if field in required else f"`{_plain(shape['default'])}`" if "default" in shape else "left out"
        rows.append(f"| `{field}` | {_type(shape)} | {default} |")
    if rows:
        yield _fields_table(rows)


def _fields_table(rows: list[str]) -> str:
    return "\n".join(["| field | type | default |", "|---|---|---|", *rows])


def _type(shape: dict[str, Any]) -> str:
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in shape:
        return " or ".join(_type(choice) for choice in shape["anyOf"])
    if shape.get("type") == "array":
        if "prefixItems" in shape:
            return f"list of {len(shape['prefixItems'])}: {', '.join(_type(item) for item in shape['prefixItems'])}"
        return f"list of {_type(shape['items'])}" if shape.get("items") else "list"
    if shape.get("type") == "object":
        inner = shape.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) and inner else "object"
    return str(shape.get("type", "any"))


def _plain(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].removesuffix(".") + "."


# --- Python


_PARTS = {
    "Opening": ("open", "load_config", "Engine", "Client", "AsyncClient", "Recommender"),
    "What goes in": ("Event", "Item", "Forget", "Record"),
}


def _python() -> Iterator[str]:
    yield "# Python"
    yield (
        "The names of `recurra`, with what `help()` says of them. `Engine` is embedded, `Client` and `AsyncClient` "
        "speak to a service; all three have the verbs of `Recommender`. Settings are on a "
        "[page of their own](configuration.md)."
    )
    rest = set(recurra.__all__).difference(*_PARTS.values(), ("errors", "Config", "RecurraError"))
    for title, names in {**_PARTS, "What comes back": sorted(rest)}.items():
        yield f"## {title}"
        for name in names:
            yield from _public(name, getattr(recurra, name))
    yield "## Errors"
    yield _prose(inspect.getdoc(recurra.errors) or "")
    yield "\n".join(_tree(recurra.RecurraError, 0))


def _public(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, FunctionType):
        yield f"### recurra.{name}"
        yield f"```text\n{_signature(name, value)}\n```"
        yield _prose(inspect.getdoc(value) or "")
        return
    yield f"### {name}"
    yield _prose(inspect.getdoc(value) or "")
    if issubclass(value, msgspec.Struct):
        yield _fields(value)
    for inner, method in vars(value).items():
        if inner.startswith("_"):
            continue
        if isinstance(method, property):
            yield f"#### {name}.{inner}"
            yield _prose(inspect.getdoc(method) or "")
        elif isinstance(method, FunctionType):
            yield f"#### {name}.{inner}"
            yield f"```text\n{_signature(inner, method)}\n```"
            yield _prose(inspect.getdoc(method) or "")


def _fields(struct: type[msgspec.Struct]) -> str:
    base = struct.__mro__[1]
    inherited = set(base.__struct_fields__) if issubclass(base, msgspec.Struct) else set()
    rows = []
    for field in msgspec.structs.fields(struct):
        if field.name not in inherited:
            default = "" if field.required else "left out" if field.default is msgspec.UNSET else f"`{_default(field)}`"
            rows.append(f"| `{field.name}` | {_union(_words_of(field.type))} | {default} |")
    if not rows:
        return f"The fields are those of [{base.__name__}](#{base.__name__.lower()})."
    return _fields_table(rows)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _union(kind: str) -> str:
    """Return the members of a union, joined by a word: a bar would end the cell of the table."""
    members, depth = [""], 0
    for letter in kind.replace(" | UnsetType", ""):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            members.append("")
        else:
            members[-1] += letter
    return " or ".join(f"`{member.strip()}`" for member in members).replace(" | ", " or ")


def _words_of(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    shown = _short(str(text)).replace("NoneType", "None")
    return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", shown)


def _signature(name: str, value: FunctionType) -> str:
    shown = inspect.signature(value)
    kept = [parameter for parameter in shown.parameters.values() if parameter.name != "self"]
    whole = _short(str(shown.replace(parameters=kept)))
    prefix = f"async {name}" if inspect.iscoroutinefunction(value) else name
    if len(prefix + whole) <= 100:
        return prefix + whole
    lines, starred = [], False
    for parameter in kept:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            lines.append("    *,")
            starred = True
        lines.append(f"    {_short(str(parameter))},")
    return "\n".join([f"{prefix}(", *lines, whole[whole.rindex(") -> ") :]])


def _short(annotated: str) -> str:
    """Return a signature without quotes around types and without the modules that they are in."""
    bare = annotated.replace("'", "")
    return re.sub(r"(?:\b[a-z_0-9]+\.)+(?=[A-Za-z_])", "", bare)


def _tree(error: type[BaseException], depth: int) -> Iterator[str]:
    first = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
    yield f"{'    ' * depth}- `{error.__name__}`: {first.replace('``', '`')}"
    for child in error.__subclasses__():
        # errors that a module keeps to itself are shown as what they are derived from
        if child.__module__ == error.__module__ and not child.__name__.startswith("_"):
            yield from _tree(child, depth + 1)


def _prose(doc: str) -> str:
    parts, code = [], re.compile(r"^\s*>>> ")
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        if any(code.match(line) for line in paragraph.splitlines()):
            shown = re.sub(r"\s+# doctest: .*", "", inspect.cleandoc(paragraph))
            parts.append(f"```pycon\n{shown}\n```")
        else:
            parts.append(paragraph.replace("``", "`"))
    return "\n\n".join(parts)


# --- configuration


def _configuration() -> Iterator[str]:
    yield "# Configuration"
    yield (
        "One TOML file, given by `--config FILE`; `recurra init` writes it with every setting at its default. What is "
        "left out keeps its default; a name that is not known, or a value beyond the bounds that stand behind the "
        "default, is an error. In Python: `recurra.load_config(path)` gives a `recurra.Config`, with a field for each "
        "section; one that is built there is held to the same bounds."
    )
    for part in parts():
        yield f"## [{part.name}]" if part.name else "## Top level"
        if part.about:
            yield part.about
        yield "\n".join(map(_line, part.settings))


def _line(setting: Setting) -> str:
    default = "not set" if setting.default is None else f"`{setting.default}`"
    bounds = f", {setting.bounds}" if setting.bounds else ""
    words = f": {' '.join(setting.comment)}" if setting.comment else ""
    return f"- **`{setting.name}`** (default {default}{bounds}){words}"


# --- metrics


def _metrics() -> Iterator[str]:
    yield "# Metrics"
    yield (
        "`GET /metrics` gives them in Prometheus' text format. Those of an embedded engine are in `engine.registry`. A "
        "histogram has `_bucket`, `_sum` and `_count`; a counter also has a sample that ends in `_created`. "
        "[What to alarm on](../how-to/operate.md#metrics-worth-an-alarm) is said under operation."
    )
    registry = Metrics().registry
    # what registers the others needs no application, and no store, for that
    Observed(lambda *_: None, registry)  # type: ignore[arg-type]
    SamplingAudit(Path(), "none", recurra.Config(), registry)
    register_source(registry, lambda: SourceHealth(kind="none", connected=True, state="running", problem=None))
    yield "\n".join(["| metric | kind | labels | what |", "|---|---|---|---|", *sorted(_rows(registry))])


def _rows(registry: CollectorRegistry) -> Iterator[str]:
    for collector in list(registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        yield f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


if __name__ == "__main__":
    sys.exit(main())
