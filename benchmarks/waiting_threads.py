"""Steps of a small Llama on all cores, alone and beside other work, by how OpenMP's threads wait.

docs/decisions/0004 rests on these figures. The settings take turns within a round, so that a
machine that drifts drifts for all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time

from record import Figure, write_results

NUM_ROUNDS = 5
SETTINGS = {
    "the default": {},
    "sleeping at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "a brief spin": {"GOMP_SPINCOUNT": "10000"},
}
STEPS = """
import time, torch
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(vocab_size=2048, hidden_size=192, intermediate_size=512, num_hidden_layers=4,
                     num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=256)
model = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, 2048, (8, 256))
def step():
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
step()
started = time.perf_counter()
for _ in range(4):
    step()
print(4 * ids.numel() / (time.perf_counter() - started))
"""


def tokens_per_second(setting: dict[str, str]) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    finished = subprocess.run(
        [sys.executable, "-c", STEPS],
        env={**environment, **setting},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(finished.stdout)


def burn() -> None:
    while True:
        time.perf_counter()


def measure() -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(NUM_ROUNDS):
        for name, setting in SETTINGS.items():
            found[name].append(tokens_per_second(setting))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    alone = measure()
    others = [multiprocessing.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    beside = measure()
    for other in others:
        other.terminate()
    figures = [
        Figure(f"{name}, {where}", value, "tokens/s", "higher")
        for where, rates in (("alone", alone), ("beside other work", beside))
        for name, value in rates.items()
    ]
    for where, rates in (("alone", alone), ("beside other work", beside)):
        ratio = rates["a brief spin"] / rates["the default"]
        figures.append(Figure(f"ratio, {where}", ratio, "", "higher", 0.95, "the default"))
    write_results("waiting_threads", figures)


if __name__ == "__main__":
    main()
