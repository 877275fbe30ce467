"""The commented configuration file: every section, field, comment and default as engine/config states them."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from recurra.engine.config import Config, Section, bounds_of

__all__ = ["Part", "Setting", "config_text", "parts"]

_FIELD = re.compile(r"(\w+): ")
_HEAD = "recurra's settings, every one at its default. What is left out keeps its default."
_WIDTH = 116


class Setting(NamedTuple):
    """One setting: the comment lines above it, its default as TOML (None: it has none), its bounds in words."""

    name: str
    comment: list[str]
    default: str | None
    bounds: str


class Part(NamedTuple):
    """One section by its name, empty at the top level, with what it is for."""

    name: str
    about: str
    settings: list[Setting]


def parts() -> Iterator[Part]:
    """Yield the top level, then every section."""
    yield Part("", "", [_setting(Config, field) for field in msgspec.structs.fields(Config) if not _is_section(field)])
    for field in msgspec.structs.fields(Config):
        if _is_section(field):
            section: type[Section] = field.type
            settings = [_setting(section, inner) for inner in msgspec.structs.fields(section)]
            yield Part(field.name, (section.__doc__ or "").strip().splitlines()[0], settings)


def config_text() -> str:
    """Return a TOML file that says what the defaults say."""
    top, *sections = parts()
    texts = ["\n".join([*_comment(_HEAD), "", *_lines(top)])]
    texts += ["\n".join([*_comment(part.about), f"[{part.name}]", *_lines(part)]) for part in sections]
    return "\n\n".join(texts) + "\n"


def _lines(part: Part) -> Iterator[str]:
    for setting in part.settings:
        for text in setting.comment:
            yield from _comment(text)
        yield f'# {setting.name} = "..."' if setting.default is None else f"{setting.name} = {setting.default}"


def _is_section(field: Any) -> bool:
    return isinstance(field.default, Section)


def _setting(section: type[Section], field: Any) -> Setting:
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    # the values that there are look the same in JSON and in TOML
    default = None if value is None else msgspec.json.encode(value).decode()
    return Setting(field.name, _comments(section).get(field.name, []), default, bounds_of(field.type))


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
