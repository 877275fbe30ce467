import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recurra.engine.states import cpu as states
from recurra.kernels import jit as module
from recurra.kernels.block import layers_step
from recurra.kernels.ssd.step import scan_step


def stamp(compiled: Any) -> Any:
    return compiled._cache._cache_file._source_stamp


def test_code_on_disk_depends_on_every_source_that_may_be_in_it() -> None:
    # the step is made of functions of several folders, the slab's helpers of two parts of the package
    assert stamp(layers_step) == stamp(scan_step)
    assert stamp(states._gather) != stamp(layers_step)
    kernels = module._digest(Path(module.__file__).parent)
    assert kernels in stamp(layers_step)
    assert kernels in stamp(states._gather)


def test_only_sources_with_compiled_code_count(tmp_path: Path) -> None:
    digest: Any = module._digest
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "loop.py").write_text("@jit\ndef f(): return 1")
    (tmp_path / "other.py").write_text("x = 1")
    first = digest.__wrapped__(tmp_path)
    (tmp_path / "other.py").write_text("x = 2")
    assert digest.__wrapped__(tmp_path) == first
    (inner / "loop.py").write_text("@jit\ndef f(): return 2")
    assert digest.__wrapped__(tmp_path) != first


ROOT = Path(__file__).resolve().parents[2]
KINDS = ("jit", "fast_jit", "inline_jit")


def compiled_functions() -> list[tuple[str, str, set[str]]]:
    """Return the name, the decorator, and the names of what it calls, of every compiled function of the package."""
    found = []
    for part in ("kernels", "engine", "connectors", "simulations"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.FunctionDef):
                    continue
                names = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
                calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
                called = {known(path, each.id) for each in calls if isinstance(each, ast.Name)}
                found += [(known(path, node.name), kind, called) for kind in KINDS if kind in names]
    return found


def known(path: Path, name: str) -> str:
    # a private function is one of its file
    return f"{path}:{name}" if name.startswith("_") else name


def test_no_compiled_function_calls_one_with_sums_in_any_order() -> None:
    # it would be there twice, rounded differently, and which one runs would depend on what was compiled before
    functions = compiled_functions()
    assert len(functions) > 50
    inlined = {name for name, kind, _ in functions if kind == "inline_jit"}
    fast = {name for name, kind, called in functions if kind == "fast_jit" or (kind == "jit" and called & inlined)}
    assert {(name, other) for name, _, called in functions for other in called & fast} == set()


STEPS = """
import numpy as np, torch
from recurra.engine.config import Config
from recurra.engine.model import StepWeights
from recurra.engine.model.streaming import StreamingModel
from recurra.engine.states.cpu import StateSlab
torch.manual_seed(0)
slab = StateSlab(StepWeights.of(StreamingModel(Config().model, 50)), 8)
items, times_ms = np.arange(24) * 7 % 50, np.arange(24) * 1234
slab.advance(np.arange(3), np.arange(3) * 8, np.full(3, 8), np.ones(3, bool), items, times_ms)
print(slab.vectors[:3].tobytes().hex())
"""


@pytest.mark.slow
def test_code_from_the_disk_gives_the_bits_of_code_just_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", STEPS], env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    )
    assert first == second
