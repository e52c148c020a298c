"""What the GPU's benchmark adds up, on made-up kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
KERNELS = [
    ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", 0.5),
    ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", 0.1),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", 0.05),
    ("triton_red_fused_mul_silu_3", 0.2),
    ("multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", 0.05),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import gpu

    return gpu


def test_a_step_is_shared_out_among_its_kernels(gpu: Any) -> None:
    assert gpu.shares_of(KERNELS, 2.0) == pytest.approx(
        {
            "products": 0.25,
            "attention": 0.075,
            "norms, activations, loss, copies": 0.1,
            "clipping and update": 0.025,
            "the device idle": 0.55,
        }
    )


def test_time_that_is_counted_twice_is_no_share(gpu: Any) -> None:
    with pytest.raises(ValueError, match=r"1\.80 times the step"):
        gpu.shares_of([*KERNELS, ("Optimizer.step#AdamW.step", 0.9)], 1.0)


ROW = {
    "shape": "1B",
    "kind": "compiled",
    "mfu": 0.5531,
    "tokens_per_s": 64_480.9,
    "micro_batch": 8,
    "peak_gib": 71.6,
    "planned_gib": 79.5,
    "wait_share": 0.0019,
    "took_s": 61.4,
}


def test_what_was_measured_ends_in_a_table_with_its_formula(gpu: Any) -> None:
    rows = [
        ROW,
        {"shape": "1B", "of": "compiled", "loss_off": 1e-6, "gradient_off": 0.02},
        {"shape": "3B", "kind": "eager", "error": "out of memory"},
        {"limit": "product 8192×8192×8192", "rate": 777.4, "unit": "TFLOP/s"},
    ]
    head, line = gpu.table_of([ROW]).splitlines()[:2]
    assert head.split("  ")[0].strip() == "shape, way"
    assert line.split()[:5] == ["1B,", "compiled", "0.553", "64,481", "8"]
    assert line.split()[5:] == ["71.6", "GiB", "0.90", "0.19%", "61", "s"]
    told = gpu.table_of(rows)
    assert "product 8192×8192×8192: 777.4 TFLOP/s" in told
    assert "3B, eager: out of memory" in told
    assert "MFU = tokens/s × FLOPs per token / 989e12 (989 TFLOP/s" in told
    assert "+ 6 × layers × heads × head width × sequence length" in told


def test_of_each_launch_time_and_sequences_at_a_time_are_on_record(gpu: Any) -> None:
    figures = {
        figure.name: figure.value
        for figure in gpu.figures_of([ROW, {"shape": "1B", "total_s": 100.0}])
    }
    assert figures["1B, compiled: time of the launch"] == 61.4
    assert figures["1B, compiled: sequences at a time"] == 8
    assert figures["1B, in all: time"] == 100.0
    assert gpu._is_of_others({"3B"}, "1B, in all: time")


def test_limits_are_on_record_by_the_command_that_takes_them() -> None:
    rows = json.loads((BENCHMARKS / "results" / "gpu.json").read_text())
    limits = [row for row in rows if row["unit"] in ("TFLOP/s", "TB/s")]
    assert len(limits) == 12
    assert all("--limits" in row["command"] for row in limits)


def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Give the benchmark's command where torch sees no GPU."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_has_the_formula(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--help"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "MFU = tokens/s × FLOPs per token / 989e12 (989 TFLOP/s" in capsys.readouterr().out


@pytest.mark.slow
def test_a_look_at_it_without_a_gpu_ends_in_its_table() -> None:
    done = asked("--shapes", "tiny", "--kinds", "eager", "--steps", "3", "--sequences", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\ntiny, eager " in done.stdout, done.stdout + done.stderr
    assert "MFU = tokens/s" in done.stdout
    assert "all of it took" in done.stdout
    assert asked("--limits").returncode == 1


def test_figures_that_were_not_taken_stay_on_record(gpu: Any) -> None:
    names = ("1B, eager: MFU", "3B, compiled: rate", "product 8192", "0.5B, eager: rate")
    for taken, expected in (
        ({"1B"}, ["3B, compiled: rate", "product 8192", "0.5B, eager: rate"]),
        ({"1B", "limits"}, ["3B, compiled: rate", "0.5B, eager: rate"]),
    ):
        assert [name for name in names if gpu._is_of_others(taken, name)] == expected
