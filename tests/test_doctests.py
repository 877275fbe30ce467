"""Examples in the docstrings of the public face run, and the main names have one."""

import doctest
import inspect
from pathlib import Path

import pytest

import recurra

SHOWN = ("AsyncClient", "Client", "Config", "Engine", "Event", "Forget", "Item", "load_config", "open")


def _examples(name: str) -> list[doctest.DocTest]:
    value = getattr(recurra, name)
    module = inspect.getmodule(value)
    assert module is not None
    finder = doctest.DocTestFinder(recurse=False)
    return [test for test in finder.find(value, name, module=module) if test.examples]


@pytest.mark.parametrize("name", SHOWN)
def test_it_has_an_example(name: str) -> None:
    assert _examples(name)


@pytest.mark.parametrize("name", sorted(name for name in recurra.__all__ if name != "errors"))
def test_its_examples_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in _examples(name):
        said: list[str] = []
        runner.run(test, out=said.append)
        assert runner.failures == 0, "".join(said)
