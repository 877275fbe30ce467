"""Checks of ``recurra doctor``: each really runs what it names."""

import importlib.metadata
import os
import platform
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Finding", "machine", "run_checks", "store_figures"]


class Finding(NamedTuple):
    """One line of the report. ``ok`` None means that the part is optional and not there."""

    name: str
    ok: bool | None
    words: str


def machine() -> Finding:
    """Describe where this runs."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    words = f"Python {python}, {cores} cores, {memory_gib:.0f} GiB of memory, {platform.system()} {platform.machine()}"
    return Finding("machine", sys.version_info >= (3, 11), words)


def run_checks(report: Callable[[Finding], None]) -> bool:
    """Run all checks, calling ``report`` with each as it ends; returns whether recurra can work here."""
    checks: tuple[tuple[str, str, bool, Callable[[], str]], ...] = (
        ("store", "rocksdict", True, _store),
        ("search", "faiss-cpu", True, _search),
        ("compiled step", "numba", True, _compiled),
        ("model", "torch", True, _model),
        ("parity", "recurra", True, _parity),
        ("gpu", "torch", False, _gpu),
        ("triton", "triton", False, _triton),
        ("kafka client", "confluent-kafka", True, _confluent),
        ("kafka client 2", "kafka-python", True, _kafka_python),
        ("kafka codecs", "kafka-python", False, _kafka_codecs),
    )
    well = True
    for name, package, required, check in checks:
        finding = _checked(name, package, required, check)
        well = well and finding.ok is not False
        report(finding)
    return well


def store_figures(path: Path) -> dict[str, Any]:
    """Measure a store: bytes of a user in memory and on disk, and what this process needs to have it open."""
    from recurra.engine.store import Reader

    before_bytes = _rss_bytes()
    with Reader.open(path / "store") as store:
        rss_bytes = _rss_bytes()
        stats = store.stats()
    users = max(1, int(stats["users"]))
    return {
        "users": stats["users"],
        "items": stats["items"],
        "events": stats["events"],
        "kept_events": stats["kept_events"],
        "hot_user_bytes": _state_bytes(),
        "hot_history_bytes": stats["hot_history_bytes"],
        "cold_user_bytes": round(stats["cold_user_bytes"], 1),
        "cold_user_bytes_without_events": round((stats["user_bytes"] - 24 * stats["kept_events"]) / users, 1),
        "rss_bytes": rss_bytes,
        "rss_bytes_per_user": round(max(0, rss_bytes - before_bytes) / users, 1),
    }


def _checked(name: str, package: str, required: bool, check: Callable[[], str]) -> Finding:
    try:
        version = importlib.metadata.version(package)
        return Finding(name, True, f"{package} {version}: {check()}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False if required else None, f"{package} is not installed")
    except _Absent as absent:
        return Finding(name, None, str(absent))
    except Exception as error:  # any failure here is the finding
        return Finding(name, False, f"{package}: {type(error).__name__}: {error}")


class _Absent(Exception):
    """An optional part is not there."""


def _store() -> str:
    from recurra.engine.events import Event
    from recurra.engine.store import Batch, Reader, Store

    with tempfile.TemporaryDirectory(prefix="recurra-doctor-") as folder:
        with Store.open(folder) as store:
            store.apply(Batch.of([Event("doctor", "item", 1)]), 1)
            store.sync()
        with Reader.open(folder) as store:
            row = store.users.row("doctor")
            if row is None or store.history(row).n != 1:
                raise AssertionError("an event that was committed is not there after reopening")
    return "writes, syncs and reads back"


def _search() -> str:
    import faiss
    import numpy as np

    vectors = np.eye(8, dtype=np.float32)
    index = faiss.IndexFlatIP(8)
    index.add(vectors)
    _, rows = index.search(vectors[2:3], 1)
    if rows.tolist() != [[2]]:
        raise AssertionError(f"expected row 2, got {rows.tolist()}")
    return "finds the nearest item"


def _compiled() -> str:
    import numba

    if not numba.njit(lambda number: number + 1)(1) == 2:
        raise AssertionError("a compiled function gave a wrong result")
    return "compiles"


def _model() -> str:
    import torch

    value = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad((value * value).sum(), value)
    if gradient.tolist() != [2.0, 2.0]:
        raise AssertionError("a gradient is wrong")
    return "computes gradients"


def _parity() -> str:
    import torch

    from recurra.engine.config import ModelConfig
    from recurra.engine.model import StepWeights, StreamingModel
    from recurra.engine.states import StateSlab

    torch.manual_seed(0)
    model = StreamingModel(ModelConfig(), 100).eval()
    StateSlab(StepWeights.of(model), 4).check(model)
    return "event by event and whole histories give the same vectors"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise _Absent("no CUDA device; the processor does everything")
    return torch.cuda.get_device_name(0)


def _triton() -> str:
    import torch
    import triton

    if not torch.cuda.is_available():
        raise _Absent(f"triton {triton.__version__} is installed, but there is no device for it")
    return "its kernels can be used"


def _confluent() -> str:
    import confluent_kafka

    return f"librdkafka {confluent_kafka.libversion()[0]}"


def _kafka_python() -> str:
    with warnings.catch_warnings():
        # it imports what its own dependencies are about to drop; nothing that a person here could do about
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka

    return f"imports as kafka {kafka.__version__}"


def _kafka_codecs() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from kafka import codec

    missing = [name for name in ("lz4", "snappy", "zstd") if not getattr(codec, f"has_{name}")()]
    if missing:
        raise _Absent(
            f"kafka-python cannot read messages compressed with {', '.join(missing)}: "
            "pip install 'recurra[kafka-python]'; the client confluent can"
        )
    return "reads gzip, lz4, snappy and zstd"


def _state_bytes() -> int:
    from recurra.engine.config import ModelConfig
    from recurra.engine.model import StepWeights, StreamingModel
    from recurra.engine.states import StateSlab

    return StateSlab(StepWeights.of(StreamingModel(ModelConfig(), 1)), 1).nbytes_per_slot


def _rss_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
