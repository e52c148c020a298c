"""Bases whose makers do not publish their pretraining text: Llama, Qwen, Gemma.

What is named for replay are open proxies, chosen here: nobody outside knows how near they come.
Numbers are as in the documents that stand beside them. Shapes are those of the checkpoints'
`config.json` as litgpt transcribes them (github.com/Lightning-AI/litgpt, litgpt/config.py).
"""

from __future__ import annotations

from rewarm.planning.base_facts import Fact, KnownBase, ReplayData, Shape, tenth_of

__all__ = ["UNPUBLISHED_BASES"]

_B = 10**9
_T = 10**12
_ENGLISH = ReplayData(
    ("mlfoundations/dclm-baseline-1.0", "HuggingFaceFW/fineweb-edu"),
    is_proxy=True,
    source="our choice: the makers name public web text and no data set; these are filtered web",
)
_MANY_LANGUAGES = ReplayData(
    (
        "mlfoundations/dclm-baseline-1.0",
        "HuggingFaceFW/fineweb-edu",
        "HuggingFaceFW/fineweb-2",
    ),
    is_proxy=True,
    source="our choice: the makers name text of many languages and no data set; these are filtered "
    "web, English and others",
)


# Llama

_LLAMA_1 = "arXiv 2302.13971"
_LLAMA_2 = "arXiv 2307.09288"
_LLAMA_3 = "arXiv 2407.21783"
_CARDS = "github.com/meta-llama/llama-models, models"


def _llama_1(
    size: str, hub: str, peak_lr: float, tokens: int, hidden_size: int, num_layers: int
) -> KnownBase:
    return KnownBase(
        name=f"Llama 1 {size}",
        family="Llama 1",
        hub_ids=(f"huggyllama/llama-{hub}",),
        shape=Shape("llama", hidden_size, num_layers, 32000, 2048),
        schedule=Fact("cosine", f"{_LLAMA_1}, section 2.3"),
        peak_lr=Fact(peak_lr, f"{_LLAMA_1}, table 2"),
        final_lr=Fact(tenth_of(peak_lr), f"{_LLAMA_1}, section 2.3: a tenth of the peak"),
        tokens=Fact(tokens, f"{_LLAMA_1}, table 2"),
        batch_tokens=Fact(4_000_000, f"{_LLAMA_1}, table 2: 4M"),
        sequence_length=Fact(2048, f"{_LLAMA_2}, table 1: 2k"),
        betas=Fact((0.9, 0.95), f"{_LLAMA_1}, section 2.3"),
        weight_decay=Fact(0.1, f"{_LLAMA_1}, section 2.3"),
        data=ReplayData(
            ("togethercomputer/RedPajama-Data-1T",),
            is_proxy=True,
            source="our choice: it was made after the mixture that the paper describes",
        ),
    )


def _llama_2(size: str, peak_lr: float, hidden_size: int, num_layers: int) -> KnownBase:
    return KnownBase(
        name=f"Llama 2 {size}",
        family="Llama 2",
        hub_ids=(f"meta-llama/Llama-2-{size.lower()}-hf",),
        shape=Shape("llama", hidden_size, num_layers, 32000, 4096),
        schedule=Fact("cosine", f"{_LLAMA_2}, section 2.2"),
        peak_lr=Fact(peak_lr, f"{_LLAMA_2}, table 1"),
        final_lr=Fact(tenth_of(peak_lr), f"{_LLAMA_2}, section 2.2: a tenth of the peak"),
        tokens=Fact(2 * _T, f"{_LLAMA_2}, table 1"),
        batch_tokens=Fact(4_000_000, f"{_LLAMA_2}, table 1: 4M"),
        sequence_length=Fact(4096, f"{_LLAMA_2}, table 1: 4k"),
        betas=Fact((0.9, 0.95), f"{_LLAMA_2}, section 2.2"),
        weight_decay=Fact(0.1, f"{_LLAMA_2}, section 2.2"),
        data=_ENGLISH,
    )


def _llama_3(
    version: str, size: str, peak_lr: float, hidden_size: int, num_layers: int
) -> KnownBase:
    meta = f"meta-llama/Meta-Llama-{version}-{size}"
    first = version == "3"
    tokens = Fact(15 * _T, f"{_CARDS}/llama3{'' if first else '_1'}/MODEL_CARD.md: about 15T")
    if size == "405B":
        tokens = Fact(15_600 * _B, f"{_LLAMA_3}, section 1")
    told = "" if size == "405B" else "; told of the 405B, the others being similar"
    return KnownBase(
        name=f"Llama {version} {size}",
        family=f"Llama {version}",
        hub_ids=(meta,) if first else (f"meta-llama/Llama-{version}-{size}", meta),
        shape=Shape("llama", hidden_size, num_layers, 128256, 8192 if first else 131072),
        schedule=Fact("cosine, then linear to 0", f"{_LLAMA_3}, section 3.4{told}"),
        peak_lr=Fact(peak_lr, f"{_LLAMA_3}, table 3"),
        final_lr=Fact(0.0, f"{_LLAMA_3}, section 3.4.3") if size == "405B" else None,
        tokens=tokens,
        batch_tokens=(
            Fact(16_000_000, f"{_LLAMA_3}, section 3.4.1: 4M, then 8M, then 16M")
            if size == "405B"
            else None
        ),
        sequence_length=Fact(8192, f"{_LLAMA_3}, section 3.4.1"),
        data=_ENGLISH if first else _MANY_LANGUAGES,
        note="the paper's table has one column for the size, whichever release" if first else "",
    )


def _llama_3_2(size: str, hidden_size: int, num_layers: int) -> KnownBase:
    card = f"{_CARDS}/llama3_2/MODEL_CARD.md"
    return KnownBase(
        name=f"Llama 3.2 {size}",
        family="Llama 3.2",
        hub_ids=(f"meta-llama/Llama-3.2-{size}",),
        shape=Shape("llama", hidden_size, num_layers, 128256, 131072),
        schedule=Fact("pruned, then distilled from Llama 3.1", card),
        tokens=Fact(9 * _T, f"{card}: up to 9T"),
        data=_MANY_LANGUAGES,
    )


_LLAMA = (
    _llama_1("7B", "7b", 3e-4, 1_000 * _B, 4096, 32),
    _llama_1("13B", "13b", 3e-4, 1_000 * _B, 5120, 40),
    _llama_1("33B", "30b", 1.5e-4, 1_400 * _B, 6656, 60),
    _llama_1("65B", "65b", 1.5e-4, 1_400 * _B, 8192, 80),
    _llama_2("7B", 3e-4, 4096, 32),
    _llama_2("13B", 3e-4, 5120, 40),
    _llama_2("70B", 1.5e-4, 8192, 80),
    _llama_3("3", "8B", 3e-4, 4096, 32),
    _llama_3("3", "70B", 1.5e-4, 8192, 80),
    _llama_3("3.1", "8B", 3e-4, 4096, 32),
    _llama_3("3.1", "70B", 1.5e-4, 8192, 80),
    _llama_3("3.1", "405B", 8e-5, 16384, 126),
    _llama_3_2("1B", 2048, 16),
    _llama_3_2("3B", 3072, 28),
)


# Qwen: dense sizes; none of the reports prints a learning rate

_NO_RATES = "the report prints neither learning rates nor batch sizes"


def _qwen(
    version: str,
    size: str,
    shape: Shape,
    tokens: Fact[int],
    sequence_length: Fact[int],
    ending: str = "",
) -> KnownBase:
    return KnownBase(
        name=f"Qwen{version} {size}",
        family=f"Qwen {version}",
        hub_ids=(f"Qwen/Qwen{version}-{size}{ending}",),
        shape=shape,
        tokens=tokens,
        sequence_length=sequence_length,
        data=_MANY_LANGUAGES,
        note=_NO_RATES,
    )


_QWEN_2 = "arXiv 2407.10671"
_QWEN_2_5 = "arXiv 2412.15115"
_QWEN_3 = "arXiv 2505.09388"
_QWEN_2_LENGTH = Fact(4096, f"{_QWEN_2}, section 3.2")
_QWEN_2_5_LENGTH = Fact(4096, f"{_QWEN_2_5}, section 3.3")
_QWEN_3_LENGTH = Fact(4096, f"{_QWEN_3}, section 3.2")
_QWEN_2_TOKENS = Fact(7 * _T, f"{_QWEN_2}, section 3.1")
_QWEN_2_5_TOKENS = Fact(18 * _T, f"{_QWEN_2_5}: up to 18T")
_QWEN_3_TOKENS = Fact(36 * _T, f"{_QWEN_3}, section 3")
_QWEN = (
    _qwen(
        "2",
        "0.5B",
        Shape("qwen2", 896, 24, 151936, 131072),
        Fact(12 * _T, f"{_QWEN_2}, section 3.1"),
        _QWEN_2_LENGTH,
    ),
    *(
        _qwen("2", size, Shape("qwen2", hidden, layers, vocab), _QWEN_2_TOKENS, _QWEN_2_LENGTH)
        for size, hidden, layers, vocab in (
            ("1.5B", 1536, 28, 151936),
            ("7B", 3584, 28, 152064),
            ("72B", 8192, 80, 152064),
        )
    ),
    *(
        _qwen(
            "2.5",
            size,
            Shape("qwen2", hidden, layers, vocab, positions),
            _QWEN_2_5_TOKENS,
            _QWEN_2_5_LENGTH,
        )
        for size, hidden, layers, vocab, positions in (
            ("0.5B", 896, 24, 151936, 32768),
            ("1.5B", 1536, 28, 151936, 131072),
            ("3B", 2048, 36, 151936, 32768),
            ("7B", 3584, 28, 152064, 131072),
            ("14B", 5120, 48, 152064, 131072),
            ("32B", 5120, 64, 152064, 131072),
            ("72B", 8192, 80, 152064, 131072),
        )
    ),
    *(
        _qwen(
            "3",
            size,
            Shape("qwen3", hidden, layers, 151936),
            _QWEN_3_TOKENS,
            _QWEN_3_LENGTH,
            "-Base",
        )
        for size, hidden, layers in (
            ("0.6B", 1024, 28),
            ("1.7B", 2048, 28),
            ("4B", 2560, 36),
            ("8B", 4096, 36),
            ("14B", 5120, 40),
        )
    ),
)


# Gemma: none of the reports prints a learning rate

_GEMMA_1 = "arXiv 2403.08295"
_GEMMA_2 = "arXiv 2408.00118"
_GEMMA_3 = "arXiv 2503.19786"


def _gemma(
    version: str,
    size: str,
    hub: str,
    shape: Shape | None,
    tokens: Fact[int] | None,
    sequence_length: Fact[int] | None,
    *,
    data: ReplayData = _ENGLISH,
    note: str = "",
) -> KnownBase:
    return KnownBase(
        name=f"Gemma {version} {size}",
        family=f"Gemma {version}",
        hub_ids=(f"google/gemma-{hub}",),
        shape=shape,
        tokens=tokens,
        sequence_length=sequence_length,
        data=data,
        note="; ".join(text for text in (note, _NO_RATES) if text),
    )


_GEMMA_1_LENGTH = Fact(8192, f"{_GEMMA_1}, section 2")
_GEMMA_2_LENGTH = Fact(8192, f"{_GEMMA_2}, section 2")
_GEMMA_3_LENGTH = Fact(32768, f"{_GEMMA_3}, section 5.3: 32K")
_DISTILLED = "pretrained by distillation"
_WITH_IMAGES = f"{_DISTILLED}; released as a model of text and images"
_GEMMA = (
    _gemma(
        "1",
        "2B",
        "2b",
        Shape("gemma", 2048, 18, 256000, 8192),
        Fact(3 * _T, f"{_GEMMA_1}, section 4"),
        _GEMMA_1_LENGTH,
    ),
    _gemma(
        "1",
        "7B",
        "7b",
        Shape("gemma", 3072, 28, 256000, 8192),
        Fact(6 * _T, f"{_GEMMA_1}, section 4"),
        _GEMMA_1_LENGTH,
    ),
    *(
        _gemma(
            "2",
            f"{number}B",
            f"2-{number}b",
            Shape("gemma2", hidden, layers, 256000, 8192),
            Fact(trillions * _T, f"{_GEMMA_2}, section 3.1"),
            _GEMMA_2_LENGTH,
        )
        for number, hidden, layers, trillions in (
            (2, 2304, 26, 2),
            (9, 3584, 42, 8),
            (27, 4608, 46, 13),
        )
    ),
    _gemma("3", "270M", "3-270m", None, None, None, data=_MANY_LANGUAGES),
    _gemma(
        "3",
        "1B",
        "3-1b-pt",
        Shape("gemma3_text", 1152, 26, 262144),
        Fact(2 * _T, f"{_GEMMA_3}, section 2.2"),
        _GEMMA_3_LENGTH,
        data=_MANY_LANGUAGES,
        note=_DISTILLED,
    ),
    *(
        _gemma(
            "3",
            f"{number}B",
            f"3-{number}b-pt",
            None,
            Fact(trillions * _T, f"{_GEMMA_3}, section 2.2"),
            _GEMMA_3_LENGTH,
            data=_MANY_LANGUAGES,
            note=_WITH_IMAGES,
        )
        for number, trillions in ((4, 4), (12, 12), (27, 14))
    ),
)

UNPUBLISHED_BASES = (*_LLAMA, *_QWEN, *_GEMMA)
"""Sizes of a release in ascending order."""
