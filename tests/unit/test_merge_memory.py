"""Merging and expanding: no two models are ever whole in memory, measured on the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewarm.model.load import new_llama
from tests.support.tiny_models import make_tokenizer_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 2**20
_PEAK = """
import torch
torch.set_num_threads(1)
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
"""
_MERGE = """
import sys
from pathlib import Path
from rewarm.errors import Problems
from rewarm.model.average import Linear, Merge, Spherical, write_merged
from rewarm.model.weight_stream import StoredWeights, layout_of
from rewarm.planning.weight_files import read_weight_files

def merge(folders, out, rule):
    Path(out).mkdir()
    files = [read_weight_files(Path(folder), Problems()) for folder in folders]
    names = {tensor.name: tensor.name for file in files[0] for tensor in file.tensors}
    opened = tuple(StoredWeights(f, part, names) for f, part in zip(folders, files))
    write_merged(Merge(opened, rule), Path(out), layout_of(files[0], names))

merge(["small", "small"], "warm", Spherical(0.5))
before = peak()
merge(["one", "two"], "linear", Linear((0.5, 0.5)))
merge(["one", "two"], "slerp", Spherical(0.5))
print(peak() - before)
"""
_LOAD = """
from pathlib import Path
import rewarm.cli, rewarm.stages.merge
from rewarm.model.load import load_base
model = load_base(Path("m0")).eval()
with torch.no_grad():
    model(input_ids=torch.arange(24).view(2, 12), use_cache=False)
print(peak())
"""
_EXPAND = """
from rewarm.cli import main
assert main(["expand", "m0", "--copies", "2", "--output", "deeper"]) == 0
print(peak())
"""
_VERB = """
from rewarm.cli import main
assert main(["merge", "--base", "m0", "--model", "m1", "--output", "out"]) == 0
print(peak())
"""


def last_number(script: str, folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def test_a_merge_needs_a_stretch_of_each_model(tmp_path: Path) -> None:
    """Two models of 96 MiB in three files; a tensor of 8 MiB is not held whole either."""
    for number, name in enumerate(("one", "two", "small")):
        (tmp_path / name).mkdir()
        placed: dict[str, str] = {}
        for shard in range(3):
            size = 100 if name == "small" else 2**21
            tensors = {f"{shard}.{k}": torch.full((size,), number + k / 4) for k in range(4)}
            file = f"model-0000{shard + 1}-of-00003.safetensors"
            save_file(tensors, tmp_path / name / file, metadata={"format": "pt"})
            placed |= dict.fromkeys(tensors, file)
        index = {"metadata": {}, "weight_map": placed}
        (tmp_path / name / "model.safetensors.index.json").write_text(json.dumps(index))
    assert last_number(_MERGE, tmp_path) < 32 * MIB


@pytest.mark.slow
def test_the_whole_verb_needs_no_more_than_loading_one_model(tmp_path: Path) -> None:
    """Verified by loading what was written: one model of 52 MiB, and never a second."""
    for seed in (0, 1):
        new_llama(
            tmp_path / f"m{seed}",
            tokenizer_json=make_tokenizer_json(),
            bos_token="<s>",
            eos_token="</s>",
            hidden_size=512,
            num_layers=5,
            num_heads=4,
            max_positions=64,
            seed=seed,
            intermediate_size=1024,
        )
    num_bytes = (tmp_path / "m0" / "model.safetensors").stat().st_size
    assert num_bytes > 48 * MIB
    one = last_number(_LOAD, tmp_path)
    assert last_number(_VERB, tmp_path) - one < 0.6 * num_bytes
    assert last_number(_EXPAND, tmp_path) - one < (2 / 5 + 0.6) * num_bytes, "seven layers, once"
