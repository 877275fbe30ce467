"""The public face: one set of verbs, typed results, nothing that a caller cannot name."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import recurra

VERBS = sorted(name for name in vars(recurra.Recommender) if not name.startswith("_"))
# what an engine or a client offers beyond the shared verbs may have further parameters of its own
FURTHER = {
    ("Engine", "train"): {"active_users"},
    ("Engine", "recommend"): {"gone"},
    ("Engine", "similar"): {"gone"},
}


def _signature(owner: Any, verb: str) -> inspect.Signature:
    function = getattr(owner, verb)
    assert callable(function)
    signature = inspect.signature(function)
    further = FURTHER.get((owner.__name__, verb), set())
    kept = [parameter for name, parameter in signature.parameters.items() if name not in further]
    return signature.replace(parameters=kept)


def test_the_protocol_has_the_verbs_of_the_product() -> None:
    expected = "close forget health history ingest recommend refusals rollback similar train versions"
    assert expected.split() == VERBS


@pytest.mark.parametrize("owner", [recurra.Engine, recurra.Client, recurra.AsyncClient])
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_have_the_same_names_arguments_and_results(owner: Any, verb: str) -> None:
    want, got = _signature(recurra.Recommender, verb), _signature(owner, verb)
    assert [(p.name, p.kind, p.default) for p in got.parameters.values()] == [
        (p.name, p.kind, p.default) for p in want.parameters.values()
    ]
    mine, theirs = (
        typing.get_type_hints(getattr(owner, verb)),
        typing.get_type_hints(getattr(recurra.Recommender, verb)),
    )
    assert {name: kind for name, kind in mine.items() if name in theirs} == theirs
    assert inspect.iscoroutinefunction(getattr(owner, verb)) == (owner is recurra.AsyncClient)


def _mentioned(kind: Any) -> set[Any]:
    """Return the types that an annotation names, those inside lists and unions included."""
    inside = typing.get_args(kind)
    # arrays say their shapes in words
    if not inside or typing.get_origin(kind) is np.ndarray:
        return {kind if not inside else np.ndarray}
    found = {typing.get_origin(kind)}
    for part in inside:
        found |= _mentioned(part) if not isinstance(part, list) else set()
    return found


def _public_callables() -> list[Callable[..., Any]]:
    found: list[Callable[..., Any]] = []
    for name in recurra.__all__:
        value = getattr(recurra, name)
        if inspect.isclass(value):
            members = {member: inspect.getattr_static(value, member) for member in dir(value)}
            found += [
                getattr(value, member)
                for member, static in members.items()
                if not member.startswith("_") and isinstance(static, types.FunctionType | classmethod)
                if getattr(getattr(value, member), "__module__", "").startswith("recurra")
            ]
        elif inspect.isfunction(value):
            found.append(value)
    return found


def test_every_type_that_a_public_function_names_is_public() -> None:
    public = {getattr(recurra, name) for name in recurra.__all__ if name != "errors"}
    # a protocol that callers implement
    brought = {"Clock"}
    hidden: dict[str, set[str]] = {}
    for function in _public_callables():
        hints = typing.get_type_hints(function)
        for kind in set().union(*(_mentioned(hint) for hint in hints.values())):
            module = getattr(kind, "__module__", "")
            if module.startswith("recurra") and kind not in public and kind.__name__ not in brought:
                hidden.setdefault(function.__qualname__, set()).add(kind.__name__)
    assert not hidden


def test_results_are_structs_and_only_attributes_of_items_are_free() -> None:
    free = {}
    for name in recurra.__all__:
        value = getattr(recurra, name)
        if not inspect.isclass(value):
            continue
        hints = dict(typing.get_type_hints(value))
        for function in _public_callables():
            if function.__qualname__.startswith(f"{name}."):
                hints |= {f"{function.__name__}.{key}": hint for key, hint in typing.get_type_hints(function).items()}
        for field, hint in hints.items():
            if Any in _mentioned(hint):
                free[f"{name}.{field}"] = hint
    assert free.keys() <= {"Item.attributes"}
