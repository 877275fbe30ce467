"""Base of every section of the configuration: each field is held to the bounds that its type declares."""

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import msgspec

from ..errors import ConfigError, shown

__all__ = ["Section", "bounds_of"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every section: immutable, unknown names refused, every value within the bounds of its field.

    Raises ``ConfigError`` with the name of the setting, its bounds and the value. Lists become tuples, and integers
    floats, where the field's type says so: what is built in Python equals what is read from a file.
    """

    # what a file calls it; the top level has no name
    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            msgspec.structs.force_setattr(self, name, self._checked(name, kind, getattr(self, name)))

    def _checked(self, name: str, kind: Any, value: object) -> object:
        if isinstance(kind, type) and issubclass(kind, Section):
            # one that was built is within its bounds; anything else is not made into one
            if isinstance(value, kind):
                return value
            raise ConfigError(f"{name} must be a section, in Python a {kind.__name__}, got {shown(value)}")
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            place = f"{self.section}.{name}".removeprefix(".")
            raise ConfigError(f"{place} must be {_words(kind)}, got {shown(value)}") from None


@cache
def _kinds(section: type[Section]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def bounds_of(kind: Any) -> str:
    """Return the bounds that a field's type declares, in a few words; empty where there are none."""
    return "" if kind is bool else _words(kind, inner=True)


def _words(kind: Any, *, inner: bool = False) -> str:
    """Return what a value must be; ``inner`` leaves out what the words around it say."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bounded(parts[0], parts[1], inner)
    if origin in (Union, UnionType):
        return _joined([part for each in parts if each is not NoneType for part in _choices(each)])
    if origin is Literal:
        return _joined(_choices(kind))
    if origin is tuple:
        what = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)}"
        return f"{what}, each {_words(parts[0], inner=True)}"
    return "true or false" if kind is bool else "text"


def _bounded(kind: Any, meta: msgspec.Meta, inner: bool) -> str:
    if meta.description is not None:
        return meta.description
    if kind in (int, float):
        what = "" if inner else "an integer, " if kind is int else "a number, "
        return what + _range(meta)
    least, most = meta.min_length or 0, meta.max_length
    size = f"of {least} to {_number(most)}" if most is not None else f"of at least {least}"
    return f"text {size} characters" if kind is str else _words(kind).replace("a list", f"a list {size}", 1)


def _choices(kind: Any) -> list[str]:
    return list(get_args(kind)) if get_origin(kind) is Literal else [_words(kind)]


def _joined(choices: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def _range(meta: msgspec.Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f"{_number(meta.ge)} to {_number(meta.le)}"
    parts = (("at least", meta.ge), ("above", meta.gt), ("at most", meta.le), ("below", meta.lt))
    return " and ".join(f"{word} {_number(bound)}" for word, bound in parts if bound is not None)


def _number(value: float) -> str:
    return f"{int(value):_}" if float(value).is_integer() else f"{value:g}"
