"""The tree of errors is the one that its module draws."""

import re

from recurra.engine import errors


def test_the_tree_is_as_it_is_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found.group(1)) // 4
            path = [*path[:depth], found.group(2)]
            drawn[path[-1]] = path[-2] if depth else "Exception"
    real = {name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__ if name.endswith("Error")}
    assert drawn == real
