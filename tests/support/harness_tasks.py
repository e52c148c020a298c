"""Task files of lm-evaluation-harness with their data, made up, as a person offline has them."""

from __future__ import annotations

import json
import random
from pathlib import Path

NOUNS = ["model", "rate", "text", "token", "language", "document", "fox", "dog"]
VERBS = ["trains", "continues", "begins", "ends", "jumps over", "returns"]

CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
ROLLING = """
task: own_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: text.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
"""
CLOZE = """
task: own_cloze
dataset_path: json
dataset_kwargs: {data_files: {test: cloze.jsonl}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{text}}"
doc_to_target: " {{target}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
WRITING = """
task: own_writing
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl}}
output_type: generate_until
test_split: test
fewshot_split: test
num_fewshot: 1
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: " {{choices[answer]}}"
generation_kwargs: {until: ["\\n", "q"], max_gen_toks: 12, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
GROUP = """
group: own_group
task: [own_choice, own_cloze]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
"""
NAMES = ("own_choice", "own_rolling", "own_cloze", "own_writing")


def make_harness_tasks(folder: Path, *, num_items: int = 24, seed: int = 0) -> Path:
    """Write four tasks of the kinds that there are and a group of two; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for name, text in (
        ("choice", CHOICE),
        ("rolling", ROLLING),
        ("cloze", CLOZE),
        ("writing", WRITING),
        ("group", GROUP),
    ):
        (folder / f"{name}.yaml").write_text(text.lstrip())

    def sentence(length: int) -> str:
        words = (f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)}." for _ in [0])
        return " ".join([*words, *(rng.choice(NOUNS) for _ in range(length))])

    choices = [
        {
            "question": sentence(rng.randrange(6)),
            "choices": [sentence(rng.randrange(4)) for _ in range(4)],
            "answer": rng.randrange(4),
        }
        for _ in range(num_items)
    ]
    # Some are longer than the tiny model's 128 positions.
    texts = [{"text": sentence(rng.randrange(1, 160))} for _ in range(num_items)]
    clozes = [
        {"text": sentence(rng.randrange(8)), "target": rng.choice(NOUNS)} for _ in range(num_items)
    ]
    for name, items in (("choice", choices), ("text", texts), ("cloze", clozes)):
        lines = "".join(json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder
