"""The Triton kernels compile for Hopper (sm_90) on a machine without a GPU.

In a program of its own: where the interpreter is on, nothing is compiled.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the optional extra gpu is not installed")

PROGRAM = """
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

scan = import_module("recurra.kernels.ssd.triton")
kernels = import_module("recurra.kernels.ssd.triton_kernels")
step = import_module("recurra.kernels.block.triton")

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
FLOATS = {"A", "D", "dt", "start", "final", "dfinal", "ddt", "dA", "dD", "dS"}


def compile_for_hopper(kernel, kept, constants, warps, stages):
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name == "eps":
            signature[name] = "fp32"
        elif name in ("cu", "lengths", "slots", "offsets"):
            signature[name] = "*i64"
        elif name == "row_len" or name.endswith(("_b", "_l", "_h", "_stride")):
            signature[name] = "i32"
        else:
            wide = name in FLOATS or (kernel is step._mix_kernel and name not in ("state", "window"))
            signature[name] = "*fp32" if wide else "*" + kept
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    if kernel is not step._mix_kernel:
        options["maxnreg"] = scan.REGISTERS
    source = ASTSource(kernel, signature, constexprs=constants)
    cubin = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    # where a kernel does not fit, the assembler gives up and keeps next to nothing in registers
    registers, stack = (int(re.search(rf"{name}:(\\d+)", usage.stdout)[1]) for name in ("REG", "STACK"))
    assert registers > 64, usage.stdout
    assert stack < 4096, usage.stdout


def scan_constants(run, **flags):
    sizes = {"heads": 4, "p": 32, "n": 32, "P": 32, "N": 32, "Q": run.chunk, "STAGES": run.stages}
    return sizes | {"PRECISION": "tf32x3", "HAS_D": True, "HAS_START": True, "PADDED": False, "PACKED": False} | flags


for task in sys.argv[1:]:
    what, kept = task.split("-")
    if what == "forward":
        run = scan.default_launch(DTYPES[kept], "tf32x3")[0]
        compile_for_hopper(kernels.scan_forward, kept, scan_constants(run, SAVE=False), run.warps, run.stages)
    elif what == "train":
        run, back = scan.default_launch(DTYPES[kept], "tf32x3")
        flags = {"SAVE": True, "PACKED": True}
        compile_for_hopper(kernels.scan_forward, kept, scan_constants(run, **flags), run.warps, run.stages)
        flags = {"HAS_DFINAL": True, "PACKED": True}
        compile_for_hopper(kernels.scan_backward, kept, scan_constants(back, **flags), back.warps, back.stages)
    else:
        sizes = {"h": 4, "p": 32, "n": 32, "H": 4, "P": 32, "N": 32, "ONE": what == "step"}
        compile_for_hopper(step._mix_kernel, kept, sizes, step.default_warps(32, 128), 1)
"""


@pytest.mark.parametrize(
    "tasks",
    [
        ["train-bf16", "step-fp32"],
        pytest.param(["forward-bf16", "forward-fp32", "train-fp32"], marks=pytest.mark.slow),
        pytest.param(["step-bf16", "runs-fp32", "runs-bf16"], marks=pytest.mark.slow),
    ],
)
def test_compiles_for_hopper(tasks: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *tasks], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
