"""Bases whose pretraining text is open: Pythia and SmolLM here, OLMo in `bases_olmo.py`.

Numbers are as in the documents that stand beside them. Shapes are those of the training
configurations, and of the checkpoints' `config.json` as litgpt transcribes them
(github.com/Lightning-AI/litgpt, litgpt/config.py).
"""

from __future__ import annotations

from rewarm.planning.base_facts import Fact, KnownBase, ReplayData, Shape, tenth_of
from rewarm.planning.bases_olmo import OLMO_BASES

__all__ = ["OPEN_BASES"]

_B = 10**9
_T = 10**12


# Pythia: arXiv 2304.01373 and the configurations it was trained by

_PYTHIA_REPOSITORY = "github.com/EleutherAI/pythia"
_PILE = ReplayData(
    ("EleutherAI/pile-standard-pythia-preshuffled",),
    is_proxy=False,
    source="huggingface.co/datasets: the tokens, in the order in which they were shown",
)
_PILE_DEDUPED = ReplayData(
    ("EleutherAI/pile-deduped-pythia-preshuffled", "EleutherAI/the_pile_deduplicated"),
    is_proxy=False,
    source="huggingface.co/datasets: the tokens, in the order in which they were shown; the text",
)
_PYTHIA_1B_NOTE = (
    "README.md gives a peak of 3e-4, the configuration 2.5e-4; where paper and configuration "
    "differed on the weight decay, the authors held to the configuration (EleutherAI/pythia, "
    "issue 132)"
)


# Tokens are the configuration's train-iters times its batch of 1,024 sequences.
def _pythia(
    size: str,
    peak_lr: float,
    hidden_size: int,
    num_layers: int,
    vocab_size: int,
    *,
    deduped: bool,
    note: str = "",
) -> KnownBase:
    ending = "-deduped" if deduped else ""
    source = f"{_PYTHIA_REPOSITORY}, models/{size}/pythia-{size.lower()}{ending}.yml"
    return KnownBase(
        name=f"Pythia {size}{' deduped' if deduped else ''}",
        family="Pythia",
        hub_ids=(f"EleutherAI/pythia-{size.lower()}{ending}",),
        shape=Shape("gpt_neox", hidden_size, num_layers, vocab_size, 2048),
        schedule=Fact("cosine", source),
        peak_lr=Fact(peak_lr, source),
        final_lr=Fact(tenth_of(peak_lr), source),
        tokens=Fact(143_000 * 2_097_152, source),
        batch_tokens=Fact(2_097_152, source),
        sequence_length=Fact(2048, source),
        betas=Fact((0.9, 0.95), source),
        weight_decay=Fact(0.1, source),
        data=_PILE_DEDUPED if deduped else _PILE,
        note=note,
    )


def _tiny_pythia(size: str, hidden_size: int, max_positions: int) -> KnownBase:
    """Return one of the two that came later; their configurations name the deduplicated Pile."""
    source = f"{_PYTHIA_REPOSITORY}, models/{size}/pythia-{size.lower()}.yml"
    name = f"EleutherAI/pythia-{size.lower()}"
    return KnownBase(
        name=f"Pythia {size}",
        family="Pythia",
        hub_ids=(name, f"{name}-deduped"),
        shape=Shape("gpt_neox", hidden_size, 6, 50304, max_positions),
        schedule=Fact("cosine", source),
        peak_lr=Fact(1e-3, source),
        final_lr=Fact(1e-4, source),
        tokens=Fact(143_000 * 2_097_152, source),
        batch_tokens=Fact(2_097_152, source),
        sequence_length=Fact(2048, source),
        betas=Fact((0.9, 0.95), source),
        weight_decay=Fact(0.1, source),
        data=_PILE_DEDUPED,
        note="the hub id without -deduped was moved to a model of the standard Pile in 2026; the "
        "configuration that was read names the deduplicated one",
    )


_PYTHIA_SIZES = (
    ("70M", 1e-3, 512, 6, 50304, ""),
    ("160M", 6e-4, 768, 12, 50304, ""),
    ("410M", 3e-4, 1024, 24, 50304, ""),
    ("1B", 2.5e-4, 2048, 16, 50304, _PYTHIA_1B_NOTE),
    ("1.4B", 2e-4, 2048, 24, 50304, ""),
    ("2.8B", 1.6e-4, 2560, 32, 50304, ""),
    ("6.9B", 1.2e-4, 4096, 32, 50432, ""),
    ("12B", 1.2e-4, 5120, 36, 50688, ""),
)
_PYTHIA = (
    _tiny_pythia("14M", 128, 512),
    _tiny_pythia("31M", 256, 1024),
    *(
        _pythia(*size[:5], deduped=deduped, note=size[5])
        for size in _PYTHIA_SIZES
        for deduped in (False, True)
    ),
)


# SmolLM

_SMOLLM_1_CONFIG = "github.com/huggingface/smollm, pre-training/smollm1/config_smollm1_135M.yaml"
_SMOLLM_1_BLOG = "huggingface.co/blog/smollm"
_SMOLLM_CORPUS = ReplayData(("HuggingFaceTB/smollm-corpus",), is_proxy=False, source=_SMOLLM_1_BLOG)
_SMOLLM_2_PAPER = "arXiv 2502.02737"
_SMOLLM_2_DATA = ReplayData(
    (
        "HuggingFaceFW/fineweb-edu",
        "mlfoundations/dclm-baseline-1.0",
        "HuggingFaceTB/smollm-corpus",
        "HuggingFaceTB/finemath",
    ),
    is_proxy=False,
    source=f"{_SMOLLM_2_PAPER}, section 4: the large parts of its mixtures",
)


def _smollm_1(size: str, tokens: int, hidden_size: int, num_layers: int) -> KnownBase:
    return KnownBase(
        name=f"SmolLM {size}",
        family="SmolLM 1",
        hub_ids=(f"HuggingFaceTB/SmolLM-{size}",),
        shape=Shape("llama", hidden_size, num_layers, 49152, 2048),
        schedule=Fact("wsd, decay over the last 20 %", _SMOLLM_1_BLOG),
        tokens=Fact(tokens, _SMOLLM_1_BLOG),
        sequence_length=Fact(2048, _SMOLLM_1_BLOG),
        data=_SMOLLM_CORPUS,
    )


def _small_smollm_2(size: str, tokens: int, hidden_size: int, num_layers: int) -> KnownBase:
    hub_id = f"HuggingFaceTB/SmolLM2-{size}"
    return KnownBase(
        name=f"SmolLM2 {size}",
        family="SmolLM 2",
        hub_ids=(hub_id,),
        shape=Shape("llama", hidden_size, num_layers, 49152, 8192),
        schedule=Fact("wsd, decay over the last 20 %", f"{_SMOLLM_2_PAPER}, section 6"),
        peak_lr=Fact(3e-3, f"{_SMOLLM_2_PAPER}, section 6"),
        tokens=Fact(tokens, f"model card huggingface.co/{hub_id}"),
        data=_SMOLLM_2_DATA,
    )


_SMOLLM_3_README = "github.com/huggingface/smollm, text/pretraining/README.md"
_SMOLLM = (
    KnownBase(
        name="SmolLM 135M",
        family="SmolLM 1",
        hub_ids=("HuggingFaceTB/SmolLM-135M",),
        shape=Shape("llama", 576, 30, 49152, 2048),
        schedule=Fact("wsd, linear decay over the last 20 %", _SMOLLM_1_CONFIG),
        peak_lr=Fact(3e-3, _SMOLLM_1_CONFIG),
        final_lr=Fact(0.0, _SMOLLM_1_CONFIG),
        tokens=Fact(600 * _B, f"{_SMOLLM_1_BLOG}; {_SMOLLM_1_CONFIG}, its first line"),
        batch_tokens=Fact(512 * 2048, _SMOLLM_1_CONFIG),
        sequence_length=Fact(2048, _SMOLLM_1_CONFIG),
        betas=Fact((0.9, 0.95), _SMOLLM_1_CONFIG),
        weight_decay=Fact(0.01, _SMOLLM_1_CONFIG),
        data=_SMOLLM_CORPUS,
        note="the configuration asks for two million steps of a million tokens, which is not 600B",
    ),
    _smollm_1("360M", 600 * _B, 960, 32),
    _smollm_1("1.7B", 1 * _T, 2048, 24),
    _small_smollm_2("135M", 2 * _T, 576, 30),
    _small_smollm_2("360M", 4 * _T, 960, 32),
    KnownBase(
        name="SmolLM2 1.7B",
        family="SmolLM 2",
        hub_ids=("HuggingFaceTB/SmolLM2-1.7B",),
        shape=Shape("llama", 2048, 24, 49152, 8192),
        schedule=Fact("wsd, linear decay over the last 10 %", f"{_SMOLLM_2_PAPER}, section 4"),
        peak_lr=Fact(5e-4, f"{_SMOLLM_2_PAPER}, section 4.1"),
        final_lr=Fact(0.0, f"{_SMOLLM_2_PAPER}, section 4.5"),
        tokens=Fact(11 * _T, f"{_SMOLLM_2_PAPER}, section 4"),
        sequence_length=Fact(2048, f"{_SMOLLM_2_PAPER}, section 4.6"),
        data=_SMOLLM_2_DATA,
        note="the last 75B tokens of the decay were taken again on longer documents (section 4.6)",
    ),
    KnownBase(
        name="SmolLM3 3B",
        family="SmolLM 3",
        hub_ids=("HuggingFaceTB/SmolLM3-3B-Base",),
        shape=Shape("smollm3", 2048, 36, 128256),
        schedule=Fact("wsd, linear decay over the last 10 %", _SMOLLM_3_README),
        peak_lr=Fact(2e-4, _SMOLLM_3_README),
        final_lr=Fact(0.0, _SMOLLM_3_README),
        tokens=Fact(11_200 * _B, "huggingface.co/blog/smollm3"),
        batch_tokens=Fact(2_360_000, f"{_SMOLLM_3_README}: 2.36M"),
        sequence_length=Fact(4096, _SMOLLM_3_README),
        betas=Fact((0.9, 0.95), _SMOLLM_3_README),
        weight_decay=Fact(0.1, _SMOLLM_3_README),
        data=ReplayData(
            (
                "HuggingFaceFW/fineweb-edu",
                "mlfoundations/dclm-baseline-1.0",
                "HuggingFaceFW/fineweb-2",
                "HuggingFaceTB/finemath",
            ),
            is_proxy=False,
            source="huggingface.co/blog/smollm3: the large parts of its mixtures",
        ),
        note="100B tokens on longer contexts follow the decay, at rates that were not found",
    ),
)

OPEN_BASES = (*_PYTHIA, *OLMO_BASES, *_SMOLLM)
"""Sizes of a family in ascending order."""
