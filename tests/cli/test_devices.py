"""Commands that are to run on a GPU, on a machine without one."""

import faiss
import pytest
import torch

from .conftest import Run

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device to run on")


@pytest.mark.parametrize(
    "command", [("evaluate", "events.jsonl"), ("bench", "train"), ("bench", "kernels")], ids=lambda words: words[-1]
)
def test_a_missing_device_is_one_sentence(command: tuple[str, ...], run: Run) -> None:
    sentence = run.refused(*command, "--device", "cuda")
    assert "CUDA device" in sentence
    assert "none" in sentence or "no CUDA device" in sentence


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS has a GPU part")
def test_a_search_without_faiss_s_gpu_part_is_one_sentence(run: Run) -> None:
    sentence = run.refused("bench", "query", "--items", "1000", "--device", "cuda")
    assert sentence.endswith("install faiss-gpu in place of faiss-cpu")
