"""Any two techniques in one run: it trains, resumes to the same bits, exports and is read again; or
the plan refuses, and says why.

All of it happens in one process, on a model of a few thousand parameters. The fast tests hold each
technique alone; this matrix belongs to `make test-all`. What holds a torchao technique runs where
torchao is there (`tools/test_all.py` sees to it).
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rewarm.cli import main
from rewarm.model.load import load_base
from rewarm.planning.plan import load_plan
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RECIPE = """
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 1536 }
batch = { tokens = 128, sequence_length = 32 }
sources.new = { path = "my-text", role = "new", held_out = 0.1 }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1 }
evaluation = { every_steps = 6, max_bytes_per_domain = 1000, max_answers = 2 }
checkpoints = { every_steps = 4 }
training = { num_threads = 1, precision = "float32" }
phases = [
    { name = "one", roles = { new = 0.75, old = 0.25 }, until = { fraction = 0.5 } },
    { name = "two", roles = { new = 0.5, old = 0.5 } },
]
"""

_MADE = (
    'sources.made={{role="replay", held_out=0.1, rehearse={{tokens=1500, max_tokens_per_sample=40, '
    "min_tokens=5, batch_samples=16, top_k_logits={}}}}}"
)
"""Old text that the base makes up; it is random, and writes the end of a text soon."""

_SHOWN = (
    "phases=[{name='one', weights={new=0.5, old=0.25, made=0.25}, until={fraction=0.5}}, "
    "{name='two', weights={new=0.5, made=0.5}}]"
)
"""By its size it would have so small a share of the old text that no step showed any of it."""

TECHNIQUES: dict[str, tuple[str, ...]] = {
    "wsd": ("schedule.kind=wsd", "schedule.warmup_fraction=0.2"),
    "infinite": ("schedule.kind=infinite", "schedule.final_lr=peak/10"),
    "cyclic": ("schedule.kind=cyclic", "schedule.warmup_steps=2"),
    "pieces": (
        'schedule={kind="pieces", pieces=[{shape="linear", fraction=0.5, end_lr=1e-2}, '
        '{shape="1-sqrt", end_lr=1e-4}]}',
    ),
    "subset": ("sources.new.subset={epochs=2, redraw=true}",),
    "stored order": ('sources.old.order="stored"',),
    "lower half frozen": ("parameters.freeze=['layers.lower-half', 'embeddings']",),
    "random half": ("parameters.random_half=true",),
    "lora": ("parameters.adapter={rank=2}",),
    "dora": ('parameters.adapter={kind="dora", rank=2}',),
    "freezeout": ('freezing.kind="freezeout"',),
    "auto": ("freezing={kind='auto', every=0.2}",),
    "unfreeze": ('freezing.kind="unfreeze"',),
    "chunked loss": ('training.loss="chunked"',),
    "documents together": ("batch.mask_documents=false",),
    "best-fit": ('batch.packing="best-fit"',),
    "l2sp": ("retention.l2sp.weight=0.1",),
    "ewc": ("retention.ewc={fisher_from='old', sequences=8}",),
    "lwf": ("retention.distill={}",),
    "agem": ("retention.agem={memory=['old'], sequences_per_step=3}",),
    "ema": ("retention.ema.decay=0.8",),
    "rehearsed": (_MADE.format(0), _SHOWN),
    "kl stored": (
        _MADE.format(4),
        _SHOWN,
        "retention.distill={on=['made'], teacher='stored', replaces_loss=true}",
    ),
    "8-bit": ('optimizer.kind="adamw8bit"',),
    "muon": ('optimizer.kind="muon"',),
    "expanded": ('base.path="my-deeper-model"', 'parameters.train=["expanded"]'),
    "guard": ('guard={non_finite="skip", spike="skip"}',),
}

RECORDED = {
    "l2sp": "l2sp",
    "ewc": "ewc",
    "lwf": "distill",
    "kl stored": "distill",
    "agem": "agem",
}
"""Figures in every step's record that say that a technique is at work."""

REFUSED: dict[frozenset[str], str] = {
    **{
        frozenset({adapter, other}): words
        for adapter in ("lora", "dora")
        for other, words in (
            ("lower half frozen", "the weights themselves do not train"),
            ("random half", "the weights themselves do not train"),
            ("freezeout", "leave one of the two out"),
            ("auto", "leave one of the two out"),
            ("unfreeze", "leave one of the two out"),
            ("l2sp", "an adapter's matrices have none"),
            ("ewc", "an adapter's matrices have none"),
            ("expanded", "the weights themselves do not train"),
            ("muon", "an adapter trains thin factors"),
        )
    },
}
"""Pairs that make no sense, and what the plan says of them."""

_ONE_KEY = (
    {"wsd", "infinite", "cyclic", "pieces"},
    {"lora", "dora"},
    {"freezeout", "auto", "unfreeze"},
    {"lwf", "kl stored"},
    {"8-bit", "muon"},
    {"rehearsed", "kl stored"},
)
"""Techniques of one group are values of one key: there is no having two."""

PAIRS = [
    pair
    for pair in itertools.combinations(TECHNIQUES, 2)
    if not any(set(pair) <= group for group in _ONE_KEY)
]


@pytest.fixture(scope="module", autouse=True)
def disk() -> Iterator[None]:
    """No power fails here: what is written need not reach the disk (half of the time it took)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a reader has, all text of it prepared, once for every base and setting."""
    folder = make_reader_folder(tmp_path_factory.mktemp("matrix") / "reader")
    for name in ("my-text", "my-old-text"):
        in_one_file(folder / name)
    (folder / "r.toml").write_text('name = "r"' + RECIPE)
    deeper = str(folder / "my-deeper-model")
    assert main(["expand", str(folder / "my-model"), "--copies", "2", "--output", deeper]) == 0
    for technique in ("wsd", "rehearsed", "kl stored"):
        for base in ((), TECHNIQUES["expanded"]):
            given = [str(folder / "r.toml"), *as_options([*TECHNIQUES[technique], *base])]
            assert technique == "wsd" or main(["rehearse", *given]) == 0
            assert main(["prepare", *given]) == 0
    return folder


def in_one_file(folder: Path) -> None:
    """Put the texts of a folder into one file: every launch looks at each file there is."""
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    shutil.rmtree(folder)
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(lines)


def as_options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("-o", setting)]


def train(folder: Path, name: str, options: list[str], *, until_step: int | None = None) -> int:
    stop = [] if until_step is None else ["--until-step", str(until_step)]
    return main(["train", str(folder / "r.toml"), "-o", f"name={name}", *options, *stop])


def check(
    folder: Path,
    techniques: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    *,
    stops: tuple[int, ...],
) -> None:
    """Train, once whole and once in parts, and export; or see the plan refuse."""
    if "8-bit" in techniques and importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed: `tools/test_all.py` has it")
    options = as_options([setting for name in techniques for setting in TECHNIQUES[name]])
    words = REFUSED.get(frozenset(techniques))
    if words is not None:
        assert main(["plan", str(folder / "r.toml"), *options]) == 2
        assert words in capsys.readouterr().err
        return
    name = "-".join(techniques).replace(" ", ".")
    assert train(folder, f"{name}.whole", options) == 0
    for step in stops:
        assert train(folder, f"{name}.parts", options, until_step=step) == 0
    assert train(folder, f"{name}.parts", options) == 0
    whole, parts = (RunFolder(folder / "runs" / f"{name}.{kind}") for kind in ("whole", "parts"))
    assert [(r.step, r.loss, r.lr, r.retention) for r in whole.steps()] == [
        (r.step, r.loss, r.lr, r.retention) for r in parts.steps()
    ]
    figures = {RECORDED[name] for name in techniques if name in RECORDED}
    assert {name for record in whole.steps() for name in record.retention} == figures
    ends = [run.checkpoints / "step-00000012" for run in (whole, parts)]
    tensors = [{p.name: p.read_bytes() for p in end.glob("*.safetensors")} for end in ends]
    expected = {"model.safetensors", "optimizer.safetensors"}
    if "ema" in techniques:
        expected.add("average.safetensors")
    assert tensors[0].keys() == tensors[1].keys() == expected
    for file in expected:
        assert tensors[0][file] == tensors[1][file], file
    assert main(["export", str(parts.path)]) == 0
    exported = load_base(parts.export)
    base = load_base(Path(load_plan(parts.plan).conduct.base_folder))
    assert {n for n, _ in exported.named_parameters()} == {n for n, _ in base.named_parameters()}
    if "ema" in techniques:
        assert main(["export", "--average", str(parts.path)]) == 0
        averaged, last = (
            dict(m.named_parameters()) for m in (load_base(parts.average_export), exported)
        )
        assert averaged.keys() == last.keys()
        assert not all(torch.equal(averaged[n], last[n]) for n in last)
    for run in (whole, parts):
        shutil.rmtree(run.path)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_each_alone(folder: Path, technique: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, (technique,), capsys, stops=(1, 5, 9))


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_each_pair(folder: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped in each phase; a stop after the first step is looked at with each alone."""
    check(folder, pair, capsys, stops=(5, 9))
