"""OLMo 1, 2 and 3, whose pretraining text, configurations and checkpoints are open.

Numbers are as in the documents that stand beside them; shapes as in the training configurations.
"""

from __future__ import annotations

from rewarm.planning.base_facts import Fact, KnownBase, ReplayData, Shape

__all__ = ["OLMO_BASES"]

_B = 10**9
_T = 10**12
_OLMO_PAPER = "arXiv 2402.00838"
_OLMO_CONFIGS = "github.com/allenai/OLMo, configs"
_DOLMA = ReplayData(
    ("allenai/dolma",), is_proxy=False, source="model card huggingface.co/allenai/OLMo-7B: Dolma"
)
_OLMO_BETAS = (0.9, 0.95)


def _olmo_0424(month: str, hub_ids: tuple[str, ...], tokens: int, config: str) -> KnownBase:
    source = f"{_OLMO_CONFIGS}/official/{config}"
    return KnownBase(
        name=f"OLMo 7B {month}",
        family="OLMo 1",
        hub_ids=hub_ids,
        shape=Shape("olmo", 4096, 32, 50304, 4096),
        schedule=Fact("cosine, then a second stage", source),
        peak_lr=Fact(3e-4, source),
        tokens=Fact(tokens, f"model card huggingface.co/{hub_ids[0]}"),
        batch_tokens=Fact(512 * 4096, source),
        sequence_length=Fact(4096, source),
        betas=Fact(_OLMO_BETAS, source),
        weight_decay=Fact(0.1, source),
        data=_DOLMA,
        note="the cosine goes to a tenth of the peak; the rate at the end of the second stage was "
        "not found",
    )


_OLMO_1 = (
    KnownBase(
        name="OLMo 1B",
        family="OLMo 1",
        hub_ids=("allenai/OLMo-1B-hf", "allenai/OLMo-1B"),
        shape=Shape("olmo", 2048, 16, 50304, 2048),
        schedule=Fact("cosine", f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        peak_lr=Fact(4e-4, f"{_OLMO_PAPER}, table 1; {_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        final_lr=Fact(4e-5, f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml: a tenth of the peak"),
        tokens=Fact(3 * _T, "model card huggingface.co/allenai/OLMo-1B"),
        batch_tokens=Fact(2048 * 2048, f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        sequence_length=Fact(2048, f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        betas=Fact(_OLMO_BETAS, f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        weight_decay=Fact(0.1, f"{_OLMO_CONFIGS}/official/OLMo-1B.yaml"),
        data=_DOLMA,
        note="the paper's table has 2T tokens and its text a linear decay; card and configuration "
        "have about 3T and a cosine",
    ),
    KnownBase(
        name="OLMo 7B",
        family="OLMo 1",
        hub_ids=("allenai/OLMo-7B-hf", "allenai/OLMo-7B"),
        shape=Shape("olmo", 4096, 32, 50304, 2048),
        schedule=Fact("linear", f"{_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        peak_lr=Fact(3e-4, f"{_OLMO_PAPER}, table 1; {_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        final_lr=Fact(
            0.0,
            f"{_OLMO_PAPER}, section 3: the last 1,000 steps; model card "
            "huggingface.co/allenai/OLMo-7B",
        ),
        tokens=Fact(2_460 * _B, f"{_OLMO_PAPER}, table 1"),
        batch_tokens=Fact(2048 * 2048, f"{_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        sequence_length=Fact(2048, f"{_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        betas=Fact(_OLMO_BETAS, f"{_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        weight_decay=Fact(0.1, f"{_OLMO_CONFIGS}/official/OLMo-7B.yaml"),
        data=_DOLMA,
        note="revision step556000-tokens2460B is the one before the decay to 0, at 3e-5",
    ),
    _olmo_0424(
        "April 2024",
        ("allenai/OLMo-7B-0424-hf", "allenai/OLMo-1.7-7B-hf"),
        2_050 * _B,
        "OLMo-1.7-7B.yaml",
    ),
    _olmo_0424("July 2024", ("allenai/OLMo-7B-0724-hf",), 2_750 * _B, "OLMo-7B-0724.yaml"),
    KnownBase(
        name="OLMo 1B July 2024",
        family="OLMo 1",
        hub_ids=("allenai/OLMo-1B-0724-hf",),
        shape=Shape("olmo", 2048, 16, 50304, 4096),
        tokens=Fact(3_050 * _B, "model card huggingface.co/allenai/OLMo-1B-0724-hf"),
        sequence_length=Fact(4096, "model card huggingface.co/allenai/OLMo-1B-0724-hf"),
        data=_DOLMA,
    ),
)

_OLMO_2_PAPER = "arXiv 2501.00656"
_OLMO_2_DATA = ReplayData(
    ("allenai/olmo-mix-1124", "allenai/dolmino-mix-1124"),
    is_proxy=False,
    source=f"{_OLMO_2_PAPER}, first page: first and second stage",
)


def _olmo_2(
    size: str,
    release: str,
    hidden_size: int,
    num_layers: int,
    *,
    peak_lr: Fact[float],
    tokens: Fact[int],
    num_sequences: int,
    source: str,
    note: str = "",
) -> KnownBase:
    return KnownBase(
        name=f"OLMo 2 {size}",
        family="OLMo 2",
        hub_ids=(f"allenai/OLMo-2-{release}-{size}",),
        shape=Shape("olmo2", hidden_size, num_layers, 100352, 4096),
        schedule=Fact("cosine, cut, then linear to 0", f"{_OLMO_2_PAPER}, table 3, section 2.3"),
        peak_lr=peak_lr,
        final_lr=Fact(0.0, f"{_OLMO_2_PAPER}, section 2.3; {source}"),
        tokens=tokens,
        batch_tokens=Fact(num_sequences * 4096, source),
        sequence_length=Fact(4096, source),
        betas=Fact(_OLMO_BETAS, source),
        weight_decay=Fact(0.1, source),
        data=_OLMO_2_DATA,
        note=note,
    )


_OLMO_2 = (
    _olmo_2(
        "1B",
        "0425",
        2048,
        16,
        peak_lr=Fact(
            4e-4, f"{_OLMO_CONFIGS}/official-0425/OLMo2-1B-stage1-10B-tokens-minimal.yaml"
        ),
        tokens=Fact(4_050 * _B, f"{_OLMO_2_PAPER}, table 9: 4T and 50B"),
        num_sequences=512,
        source=f"{_OLMO_CONFIGS}/official-0425/OLMo2-1B-stage2-seed42.yaml",
    ),
    _olmo_2(
        "7B",
        "1124",
        4096,
        32,
        peak_lr=Fact(3e-4, f"{_OLMO_2_PAPER}, table 3"),
        tokens=Fact(4_050 * _B, f"{_OLMO_2_PAPER}, section 2.3"),
        num_sequences=1024,
        source=f"{_OLMO_CONFIGS}/official-1124/OLMo2-7B-stage2-seed42.yaml",
        note="the average of three runs of the second stage, each from 6.15e-5 to 0",
    ),
    _olmo_2(
        "13B",
        "1124",
        5120,
        40,
        peak_lr=Fact(9e-4, f"{_OLMO_2_PAPER}, table 3"),
        tokens=Fact(5_600 * _B, f"{_OLMO_2_PAPER}, section 2.3"),
        num_sequences=2048,
        source=f"{_OLMO_CONFIGS}/official-1124/OLMo2-13B-stage2-seed2662-300B.yaml",
        note="the average of four runs of the second stage, each from 9e-5 to 0; the configuration "
        "of the first stage in the repository has 3e-4, which does not lead to 9e-5",
    ),
    _olmo_2(
        "32B",
        "0325",
        5120,
        64,
        peak_lr=Fact(6e-4, f"{_OLMO_2_PAPER}, table 3"),
        tokens=Fact(6_600 * _B, f"{_OLMO_2_PAPER}, section 2.3"),
        num_sequences=2048,
        source="github.com/allenai/OLMo-core, "
        "src/scripts/official/OLMo2/OLMo-2-0325-32B-train.py and -anneal.py",
        note="the average of several runs of the second stage",
    ),
)

_OLMO_3_SCRIPTS = "github.com/allenai/OLMo-core, src/scripts/official/OLMo3"


def _olmo_3(
    size: str,
    release: str,
    hidden_size: int,
    num_layers: int,
    *,
    peak_lr: float,
    tokens: int,
    batch_tokens: int,
    data: str,
) -> KnownBase:
    pretrain = f"OLMo-3-1025-{size}-pretrain{'-2' if size == '7B' else ''}.py"
    source = f"{_OLMO_3_SCRIPTS}/{pretrain}"
    return KnownBase(
        name=f"OLMo 3 {size}",
        family="OLMo 3",
        hub_ids=(f"allenai/Olmo-3-{release}-{size}",),
        shape=Shape("olmo3", hidden_size, num_layers),
        schedule=Fact("cosine, then linear to 0 twice", source),
        peak_lr=Fact(peak_lr, source),
        final_lr=Fact(0.0, f"{_OLMO_3_SCRIPTS}/OLMo-3-1025-{size}-long-context.py"),
        tokens=Fact(tokens, f"{_OLMO_3_SCRIPTS}/README.md: first stage"),
        batch_tokens=Fact(batch_tokens, source),
        sequence_length=Fact(8192, source),
        betas=Fact(_OLMO_BETAS, source),
        weight_decay=Fact(0.1, source),
        data=ReplayData(
            (data,), is_proxy=False, source=f"data set card huggingface.co/datasets/{data}"
        ),
        note="the stage for long contexts goes from 2.07e-4 to 0",
    )


_OLMO_3 = (
    _olmo_3(
        "7B",
        "1025",
        4096,
        32,
        peak_lr=3e-4,
        tokens=5_930 * _B,
        batch_tokens=8192 * 512,
        data="allenai/dolma3_mix-6T-1025-7B",
    ),
    _olmo_3(
        "32B",
        "1125",
        5120,
        64,
        peak_lr=6e-4,
        tokens=5_500 * _B,
        batch_tokens=8 * 1024 * 1024,
        data="allenai/dolma3_mix-6T-1025",
    ),
)

OLMO_BASES = (*_OLMO_1, *_OLMO_2, *_OLMO_3)
"""Sizes of a release in ascending order."""
