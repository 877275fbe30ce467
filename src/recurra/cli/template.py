"""The commented configuration file: every section, field, comment and default as engine/config states them."""

import inspect
import re
import textwrap
from typing import Any

import msgspec

from recurra.engine.config import Config

__all__ = ["config_text"]

_FIELD = re.compile(r"(\w+): ")
_HEAD = "recurra's settings, every one at its default. What is left out keeps its default."
_WIDTH = 116


def config_text() -> str:
    """Return a TOML file that says what the defaults say."""
    plain = [
        line for field in msgspec.structs.fields(Config) if not _is_section(field) for line in _field(Config, field)
    ]
    parts = ["\n".join([*_comment(_HEAD), "", *plain])]
    for field in msgspec.structs.fields(Config):
        if _is_section(field):
            section: type[msgspec.Struct] = field.type
            lines = [line for inner in msgspec.structs.fields(section) for line in _field(section, inner)]
            parts.append("\n".join([*_comment(_summary(section)), f"[{field.name}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _is_section(field: Any) -> bool:
    return isinstance(field.default, msgspec.Struct)


def _summary(section: type) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _field(section: type[msgspec.Struct], field: Any) -> list[str]:
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    lines = [line for text in _comments(section).get(field.name, []) for line in _comment(text)]
    if value is None:
        return [*lines, f'# {field.name} = "..."']
    # the values that there are look the same in JSON and in TOML
    return [*lines, f"{field.name} = {msgspec.json.encode(value).decode()}"]


def _comments(section: type) -> dict[str, list[str]]:
    """Return the comment lines that stand above each field in the source."""
    found: dict[str, list[str]] = {}
    pending: list[str] = []
    for line in map(str.strip, inspect.getsource(section).splitlines()):
        if line.startswith("# "):
            pending.append(line[2:])
            continue
        if match := _FIELD.match(line):
            found[match[1]] = pending
        pending = []
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]
