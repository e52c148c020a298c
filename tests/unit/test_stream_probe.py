"""The probe against scikit-learn, what it looks at, and what the preset makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from rewarm.cli import main
from rewarm.stream.probe import deal_probe, fit_linear, probe_accuracy
from tests.support.streams import EXPERIMENT, write_images

_DRAWN = np.random.default_rng(3)


def test_the_classifier_is_that_of_another_library() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = _DRAWN.normal(size=(30, 4)), _DRAWN.integers(0, 3, 30)
    # theirs is Σ cross-entropy + ‖W‖²/2C, ours the mean + ‖W‖²/200
    theirs = linear.LogisticRegression(C=100 / 30, tol=1e-10, max_iter=10_000).fit(x, y)
    ours = fit_linear(torch.from_numpy(x), torch.from_numpy(y), 3).numpy()
    np.testing.assert_allclose(ours[:, :-1], theirs.coef_, atol=1e-5)
    biases = ours[:, -1] - ours[:, -1].mean()
    np.testing.assert_allclose(biases, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)


def test_scale_and_place_of_features_do_not_matter() -> None:
    x, y = torch.from_numpy(_DRAWN.normal(size=(40, 3))), _DRAWN.integers(0, 2, 40).tolist()
    found = probe_accuracy(x[:20], y[:20], x[20:], y[20:])
    assert found == probe_accuracy(1e3 * x[:20] + 7, y[:20], 1e3 * x[20:] + 7, y[20:])


def test_a_class_that_was_not_fitted_counts_as_wrong() -> None:
    x = torch.tensor([[-1.0], [-1.1], [1.0], [1.1]])
    assert probe_accuracy(x, [4, 4, 2, 2], x, [4, 4, 2, 9]) == 0.75


def test_a_probe_is_dealt_from_candidates_alone_and_in_halves() -> None:
    labels = np.repeat(np.arange(3), 10)
    candidates = np.array([0, 1, 2, 3, 4, 10, 11, 12, 20])
    fitted, measured = deal_probe(labels, candidates, 4, seed=1)
    both = np.concatenate([fitted, measured])
    assert len(set(both.tolist())) == len(both)
    assert set(both.tolist()) <= set(candidates.tolist())
    assert np.bincount(labels[fitted], minlength=3).tolist() == [2, 2, 0]  # 5 → 4 → 2 and 2
    assert np.bincount(labels[measured], minlength=3).tolist() == [2, 1, 0]  # 3 → 2 and 1
    assert deal_probe(labels, candidates, 4, seed=2)[0].tolist() != fitted.tolist()


def _vit(folder: Path, *, empty: bool) -> None:
    torch.manual_seed(0)
    model = ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
        )
    )
    if empty:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    model.save_pretrained(folder)


def test_the_preset_takes_the_backbone_that_the_probe_finds_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "a.parquet")
    _vit(tmp_path / "random", empty=False)
    _vit(tmp_path / "zeros", empty=True)
    head = EXPERIMENT.partition("[backbones.scratch]")[0]
    (tmp_path / "e.toml").write_text(
        f'preset = "strong-simple-baseline"\ncontrol = "zeros/er"\n{head}'
        f'[backbones.zeros]\npath = "{tmp_path}/zeros"\n'
        f'[backbones.random]\npath = "{tmp_path}/random"\nlr = 0.1\n'
        '[learners.er]\nalgorithm = "er"\n'
    )
    assert main(["stream", str(tmp_path / "e.toml")]) == 0
    result = json.loads((tmp_path / "streams/made-up/result.json").read_text())
    probes = {probe["backbone"]: probe for probe in result["probes"]}
    assert probes["zeros"]["accuracies"] == [0.25, 0.25]
    assert probes["random"]["figure"]["mean"] > 0.5
    assert [probe["is_best"] for probe in result["probes"]] == [False, True]
    cells = [(cell["backbone"], cell["learner"]) for cell in result["cells"]]
    assert cells == [("zeros", "er"), ("random", "er"), ("random", "strong-simple-baseline")]
    strong = [run for run in result["runs"] if run["learner"] == "strong-simple-baseline"]
    assert all(run["second_stage"] is not None for run in strong)
    assert [(e["arm"], e["against"]) for e in result["primary"]] == [
        ("random/er", "zeros/er"),
        ("random/strong-simple-baseline", "zeros/er"),
    ]
    shown = capsys.readouterr().out
    assert "Linear probe" in shown
    page = (tmp_path / "streams/made-up/report.html").read_text()
    assert "Linear probe of each backbone" in page
