"""Any two techniques in one run: it trains, resumes to the same bits, exports and is read again; or
the plan refuses, and says why.

All of it happens in one process, on a model of a few thousand parameters. The fast tests hold each
technique alone; this matrix belongs to `make test-all`.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.model.load import load_base
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
    "guard": ('guard={non_finite="skip", spike="skip"}',),
}

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
        )
    },
}
"""Pairs that make no sense, and what the plan says of them."""

_ONE_KEY = (
    {"wsd", "infinite", "cyclic", "pieces"},
    {"lora", "dora"},
    {"freezeout", "auto", "unfreeze"},
)
"""Techniques of one group are values of one key: there is no having two."""

PAIRS = [
    pair
    for pair in itertools.combinations(TECHNIQUES, 2)
    if not any(set(pair) <= group for group in _ONE_KEY)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("matrix") / "reader")
    (folder / "r.toml").write_text('name = "r"' + RECIPE)
    assert main(["prepare", str(folder / "r.toml")]) == 0
    return folder


def train(folder: Path, name: str, overrides: list[str], *, until_step: int | None = None) -> int:
    stop = [] if until_step is None else ["--until-step", str(until_step)]
    return main(["train", str(folder / "r.toml"), "-o", f"name={name}", *overrides, *stop])


def check(folder: Path, techniques: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    settings = [setting for name in techniques for setting in TECHNIQUES[name]]
    overrides = [part for setting in settings for part in ("-o", setting)]
    words = REFUSED.get(frozenset(techniques))
    if words is not None:
        assert main(["plan", str(folder / "r.toml"), *overrides]) == 2
        assert words in capsys.readouterr().err
        return
    name = "-".join(techniques).replace(" ", ".")
    assert train(folder, f"{name}.whole", overrides) == 0
    for step in (1, 5, 9):
        assert train(folder, f"{name}.parts", overrides, until_step=step) == 0
    assert train(folder, f"{name}.parts", overrides) == 0
    whole, parts = (RunFolder(folder / "runs" / f"{name}.{kind}") for kind in ("whole", "parts"))
    assert [(r.step, r.loss, r.lr) for r in whole.steps()] == [
        (r.step, r.loss, r.lr) for r in parts.steps()
    ]
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (run.checkpoints / "step-00000012" / file for run in (whole, parts))
        assert one.read_bytes() == other.read_bytes(), file
    assert main(["export", str(parts.path)]) == 0
    exported = load_base(parts.export)
    base = load_base(folder / "my-model")
    assert {n for n, _ in exported.named_parameters()} == {n for n, _ in base.named_parameters()}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_each_alone(folder: Path, technique: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, (technique,), capsys)


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_each_pair(folder: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, pair, capsys)
