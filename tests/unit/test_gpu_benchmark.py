"""What the GPU's benchmark adds up, on made-up kernels."""

from __future__ import annotations

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


def test_figures_that_were_not_taken_stay_on_record(gpu: Any) -> None:
    names = ("1B, eager: MFU", "3B, compiled: rate", "product 8192", "0.5B, eager: rate")
    for taken, expected in (
        ({"1B"}, ["3B, compiled: rate", "product 8192", "0.5B, eager: rate"]),
        ({"1B", "limits"}, ["3B, compiled: rate", "0.5B, eager: rate"]),
    ):
        assert [name for name in names if gpu._is_of_others(taken, name)] == expected
