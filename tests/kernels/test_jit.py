from pathlib import Path
from typing import Any

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
