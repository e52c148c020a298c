"""Peak memory of `rewarm prepare`, curation on, at two sizes of a corpus a factor 8 apart.

Anonymous memory is what counts: pages of shards that are mapped belong to the system, which takes
them back as it likes. The index of held-out text grows with it up to a bound of 8 million tokens,
so both sizes hold out as much; what it takes at its bound is a figure of its own. Each size is
prepared by a process of its own, which looks at itself every 10 ms. The text is made up: words by
Zipf's law, documents of about 4 kB, 1 in 50 a copy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import Figure, write_results

from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe

FACTOR = 8
HELD_OUT_MB = 0.5
CHILD = """
import json, sys, threading
from rewarm.cli import main
import rewarm.stages.prepare, rewarm.stages.model_tools
if len(sys.argv) > 2:
    import spacy, datatrove.pipeline.filters, datatrove.pipeline.dedup

def anonymous_mb():
    text = open("/proc/self/status").read()
    row = next(line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(row.split()[1]) / 1024

before, peak, ended = anonymous_mb(), [0.0], threading.Event()
def watch():
    while not ended.wait(0.01):
        peak[0] = max(peak[0], anonymous_mb())
thread = threading.Thread(target=watch); thread.start()
code = main(["prepare", sys.argv[1]])
ended.set(); thread.join()
print("MB", json.dumps([before, peak[0], code]))
"""
RECIPE = """\
name = "{name}"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
budget = {{ tokens = 2_048 }}
batch = {{ tokens = 2_048, sequence_length = 1_024 }}
phases = [{{ name = "a", weights = {{ web = 1.0 }} }}]
prepared_folder = "prepared-{name}"
[sources.web]
path = "{name}/*.jsonl"
role = "new"
held_out = {held_out}
[sources.web.curate]
{curate}
[evaluation.tasks]
quiz = {{ path = "quiz.jsonl" }}
"""
LIGHT = 'dedup = "exact"\n'
HEAVY = (
    'quality = "gopher"\ngopher = { min_stop_words = 0 }\nrepetition = true\ndedup = "minhash"\n'
)


def make_text(folder: Path, megabytes: int, seed: int) -> None:
    """Write documents into files of 2 MB."""
    rng = np.random.default_rng(seed)
    vowels, consonants = "aeiou", "bdfgklmnprst"
    words = np.array(
        [
            "".join(rng.choice(list(consonants)) + rng.choice(list(vowels)) for _ in range(size))
            for size in rng.integers(1, 5, size=20_000)
        ]
    )
    chances = 1 / np.arange(1, len(words) + 1)
    chances /= chances.sum()
    folder.mkdir()
    last = ""
    for number in range(max(1, megabytes // 2)):
        with (folder / f"{number:04d}.jsonl").open("w") as file:
            size = 0
            while size < min(megabytes, 2) * 10**6:
                drawn = words[rng.choice(len(words), size=700, p=chances)].reshape(-1, 14)
                text = ".\n".join(" ".join(row) for row in drawn)
                text = last if last and rng.random() < 0.02 else text
                size += file.write(json.dumps({"text": text}) + "\n")
                last = text


def peak_mb(folder: Path, name: str, curate: str, held_out: float) -> float:
    """Prepare in a process of its own; return its anonymous memory at its peak less that before."""
    told = {"name": name, "curate": curate, "held_out": held_out}
    (folder / f"{name}.toml").write_text(RECIPE.format(**told))
    heavy = ["heavy"] if curate == HEAVY else []
    said = subprocess.run(
        [sys.executable, "-c", CHILD, f"{name}.toml", *heavy],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    before, peak, code = json.loads(said.rpartition("MB ")[2])
    assert code == 0, said
    return float(peak - before)


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_text(folder / "sample", 1, seed=1)
        sample = [json.loads(line)["text"] for line in (folder / "sample" / "0000.jsonl").open()]
        new_llama(
            folder / "base",
            tokenizer_json=train_bpe(sample, 4096),
            bos_token="<s>",
            eos_token="</s>",
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            max_positions=1024,
            seed=0,
            intermediate_size=64,
            tied_embeddings=True,
        )
        item = {"question": sample[3][:200], "choices": ["yes", "no"], "answer": 0}
        (folder / "quiz.jsonl").write_text(json.dumps(item) + "\n")
        for what, curate, small in (
            ("decontamination, exact copies", LIGHT, 64),
            ("quality, repetition, MinHash, decontamination", HEAVY, 16),
        ):
            peaks = []
            for size in (small, FACTOR * small):
                name = f"{'heavy' if curate == HEAVY else 'light'}-{size}"
                make_text(folder / name, size, seed=size)
                peaks.append(peak_mb(folder, name, curate, HELD_OUT_MB / size))
                figures.append(
                    Figure(f"memory of prepare, {size} MB ({what})", peaks[-1], "MB", "lower")
                )
            figures.append(
                Figure(
                    f"memory at {FACTOR} times the text ({what})",
                    peaks[1] / peaks[0],
                    "times",
                    "lower",
                    goal=1.25,
                    versus=f"{small} MB of text",
                )
            )
        bound = peak_mb(folder, "light-64", LIGHT, 0.6)
        label = "memory of prepare, 64 MB, index of held-out text at its bound"
        figures.append(Figure(label, bound, "MB", "lower"))
    write_results("prepare_memory", figures)


if __name__ == "__main__":
    main()
