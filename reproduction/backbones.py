"""Backbones for the streams, trained here: two of one shape on images, one on text.

The images are Omniglot's of alphabets that no stream shows: one backbone learns which character
each of them is, the other one, without labels, which of two moved and turned views belong together.
The encoder of text learns, without labels too, which two pieces are neighbours in a document.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from pyarrow import parquet
from rich.console import Console
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
)

from rewarm.artifacts import write_atomically
from rewarm.model.vocabulary import train_bpe
from rewarm.stream.holding import contrastive_loss
from rewarm.stream.inputs import PixelRows
from rewarm.stream.sections import SourceRecipe
from rewarm.stream.source import read_examples

__all__ = [
    "CORPORA",
    "FULL",
    "IMAGES_EACH_EPOCH",
    "SMOKE",
    "TEXTS_EACH_STEP",
    "Lengths",
    "make_backbones",
    "make_digits",
    "make_labelled_texts",
]

_ALPHABETS = ("Korean/", "Latin/", "Greek/", "Balinese/")
_STREAMED = (
    *("openstax_anatomy_physiology", "openstax_psychology", "pmc_trials", "medquad"),
    *("eltec_deu", "bundestag", "rustbook_de", "code_python", "tinyshakespeare"),
    "openstax_life_liberty",
)
_READ_BEFORE = ("eltec_eng", "openstax_world_history", "wikitext2_train_part")
CORPORA = (
    *("images/omniglot_small.parquet", "images/mnist_12k.parquet"),
    *(f"text/{name}.jsonl.zst" for name in (*_STREAMED, *_READ_BEFORE)),
)
"""Files of the corpora that backbones, digits and labelled texts are made of."""
_TEXT_BYTES = 256
IMAGES_EACH_EPOCH = 3_280
"""Of the alphabets that backbones are trained on."""
TEXTS_EACH_STEP = 64
_TEMPERATURE = 0.2
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long backbones are trained, and how many texts of each source are streamed, and images of
    each digit (and a quarter of that to test on)."""

    image_epochs: int
    text_steps: int
    texts_each: int
    digits_each: int


FULL = Lengths(image_epochs=12, text_steps=300, texts_each=50, digits_each=300)
SMOKE = Lengths(image_epochs=1, text_steps=4, texts_each=16, digits_each=20)


def make_backbones(data: Path, folder: Path, lengths: Lengths, console: Console) -> None:
    """Train what is not there yet."""
    makers: dict[str, Callable[[], Any]] = {
        "supervised": lambda: _of_images(data, lengths.image_epochs, with_labels=True),
        "contrastive": lambda: _of_images(data, lengths.image_epochs, with_labels=False),
    }
    for name, make in makers.items():
        if not (folder / name / "config.json").exists():
            console.print(f"backbone {name}")
            make().save_pretrained(folder / name)
    if not (folder / "text" / "config.json").exists():
        console.print("backbone text")
        _of_text(data, folder / "text", lengths.text_steps)


def make_labelled_texts(data: Path, path: Path, lengths: Lengths) -> None:
    """Write beginnings of paragraphs with the source that each is of, unless they are there."""
    if path.exists():
        return
    lines: list[str] = []
    for source in _STREAMED:
        texts = _one_piece_each(list(_documents(data, source)), lengths.texts_each)
        lines += [json.dumps({"text": text, "label": source}) for text in texts]
    write_atomically(path, "\n".join(lines) + "\n")


def make_digits(data: Path, path: Path, lengths: Lengths) -> None:
    """Write the first images of each digit and split, unless they are there."""
    if path.exists():
        return
    table = parquet.read_table(data / "images" / "mnist_12k.parquet")
    most = {"train": lengths.digits_each, "test": lengths.digits_each // 4}
    taken: Counter[tuple[str, str]] = Counter()
    chosen: list[int] = []
    names = (table[name].to_pylist() for name in ("label", "split"))
    for row, (label, split) in enumerate(zip(*names, strict=True)):
        if taken[label, split] < most[split]:
            taken[label, split] += 1
            chosen.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.take(chosen), path)


def _one_piece_each(documents: Sequence[str], most: int) -> list[str]:
    """Return a piece from the middle of each of up to `most` documents, spread over all of them.

    One of each: what is tested on must not be of a document that is trained on.
    """
    middles = [text[len(text) // 4 :][:_TEXT_BYTES] for text in documents]
    long = [middle for middle in middles if len(middle) == _TEXT_BYTES]
    count = min(most, len(long))
    return [long[number * len(long) // count] for number in range(count)]


def _pieces(data: Path, source: str, most: int) -> Iterator[str]:
    """Yield pieces of the documents that are long enough, several of each."""
    found = 0
    for text in _documents(data, source):
        starts = range(len(text) // 4, len(text) - 2 * _TEXT_BYTES, max(1, len(text) // 8))
        for start in starts:
            yield text[start : start + _TEXT_BYTES]
            found += 1
            if found == most:
                return


def _documents(data: Path, source: str) -> Iterator[str]:
    path = data / "text" / f"{source}.jsonl.zst"
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield str(json.loads(line)["text"])


def _of_images(data: Path, num_epochs: int, *, with_labels: bool) -> ResNetModel:
    path = data / "images" / "omniglot_small.parquet"
    recipe = SourceRecipe(path=str(path), kind="image", image_size=28, classes=list(_ALPHABETS))
    examples = read_examples(recipe, path)
    assert examples.images is not None
    pixels, labels = PixelRows(examples.images, 28), torch.from_numpy(examples.labels)
    torch.manual_seed(0)
    model = ResNetModel(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 1, 1],
            layer_type="basic",
            downsample_in_first_stage=False,
        )
    )
    head = nn.Linear(128, len(examples.classes) if with_labels else 64)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    num_steps = num_epochs * math.ceil(len(labels) / _BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps + 1)
    generator = np.random.default_rng(0)
    for _ in range(num_epochs):
        order = generator.permutation(len(labels))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            views = [
                _moved(pixels.rows(rows)["pixel_values"]) for _ in range(1 + (not with_labels))
            ]
            found = [head(model(view).last_hidden_state.mean((2, 3))) for view in views]
            if with_labels:
                loss: Tensor | None = F.cross_entropy(found[0], labels[rows])
            else:
                own = torch.arange(len(rows)).repeat(2)
                loss = contrastive_loss(torch.cat(found), own, _TEMPERATURE)
            assert loss is not None
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate.step()
    return model


def _moved(pixels: Tensor) -> Tensor:
    """Return images turned by up to 15°, scaled by up to 15 % and moved by up to 3 pixels."""
    count = len(pixels)
    angle = (torch.rand(count) * 2 - 1) * math.pi / 12
    scale = 1 + (torch.rand(count) * 2 - 1) * 0.15
    shift = (torch.rand(count, 2) * 2 - 1) * 3 / 14
    turn = torch.stack(
        [
            torch.stack([angle.cos() * scale, -angle.sin() * scale, shift[:, 0]], 1),
            torch.stack([angle.sin() * scale, angle.cos() * scale, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _of_text(data: Path, folder: Path, num_steps: int) -> None:
    """Train an encoder to tell neighbouring pieces of a document from those of other documents."""
    documents = [text for source in _READ_BEFORE for text in _documents(data, source)]
    documents = [text for text in documents if len(text) > 4 * _TEXT_BYTES]
    texts = [piece for source in _READ_BEFORE for piece in _pieces(data, source, 4000)]
    words = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(train_bpe(texts, 2048)), pad_token="<pad>"
    )
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=256,
            pad_token_id=words.pad_token_id,
        ),
        add_pooling_layer=False,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=num_steps + 1)
    generator = np.random.default_rng(0)
    own = torch.arange(TEXTS_EACH_STEP // 2).repeat(2)
    for _ in range(num_steps):
        texts_of_step = _neighbours(documents, TEXTS_EACH_STEP // 2, generator)
        batch = words(
            texts_of_step,
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="pt",
        )
        mask = batch["attention_mask"]
        hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        found = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        loss = contrastive_loss(found, own, _TEMPERATURE)
        assert loss is not None
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        rate.step()
    words.save_pretrained(folder)
    model.save_pretrained(folder)


def _neighbours(documents: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    """Return a piece of each of so many documents, and then the piece behind each."""
    chosen = [documents[number] for number in generator.choice(len(documents), count, False)]
    starts = [int(generator.integers(len(text) - 2 * _TEXT_BYTES)) for text in chosen]
    return [
        text[start + behind :][:_TEXT_BYTES]
        for behind in (0, _TEXT_BYTES)
        for text, start in zip(chosen, starts, strict=True)
    ]


def _tokenizer(written: str) -> Any:
    return Tokenizer.from_str(written)
