"""How documents are framed, for tokenizers of three families built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rewarm.corpus.tokenize import DocumentFrame, open_encoder, tokenizer_fingerprint
from rewarm.errors import BaseModelError, CorpusError
from rewarm.recipe.base import TokenizerRecipe

VOCABULARY = {"<s>": 0, "</s>": 1, "[UNK]": 2, "a": 3, "b": 4, "<sep>": 5, "hello": 6}


def write(folder: Path, post_processor: Any = None, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>", "<sep>"])
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


LLAMA = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
BOTH = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])


def frame(folder: Path, **recipe: object) -> DocumentFrame:
    parsed = TokenizerRecipe.model_validate(recipe)
    return open_encoder(folder, parsed, vocab_size=len(VOCABULARY)).frame


def test_a_llama_begins_with_bos_and_ends_with_eos(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", LLAMA, eos_token="</s>")
    assert frame(folder) == DocumentFrame((0,), (1,))


def test_a_gpt_ends_with_eos_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", eos_token={"content": "</s>"})
    assert frame(folder) == DocumentFrame((), (1,))


def test_a_post_processor_that_does_both_is_taken_as_it_is(tmp_path: Path) -> None:
    assert frame(write(tmp_path / "m", BOTH)) == DocumentFrame((0,), (1,))


def test_eos_may_come_from_the_models_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "config.json").write_text('{"eos_token_id": [5, 1]}')
    assert frame(folder) == DocumentFrame((), (5,))


@pytest.mark.parametrize(
    ("token_id", "found"),
    [
        (6, "the model's files give id 6, its ordinary piece 'hello'"),
        (70, "the model's files give id 70, which it does not have"),
    ],
)
def test_an_id_of_the_model_that_is_no_token_apart_from_text_ends_no_document(
    tmp_path: Path, token_id: int, found: str
) -> None:
    folder = write(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"eos_token_id": token_id}))
    with pytest.raises(BaseModelError) as caught:
        frame(folder)
    assert f"the tokenizer has no EOS token ({found})" in str(caught.value)


def test_no_eos_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        frame(write(tmp_path / "m"))
    assert "the tokenizer has no EOS token" in str(caught.value)
    assert "tokenizer.document_end" in str(caught.value)


def test_the_recipe_overrides(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", LLAMA, eos_token="</s>")
    assert frame(folder, document_begin=[], document_end=["<sep>", "</s>"]) == DocumentFrame(
        (), (5, 1)
    )
    with pytest.raises(BaseModelError, match=r"has no token '<sepp>'\n.*did you mean '<sep>'"):
        frame(folder, document_end=["<sepp>"])


def test_a_special_tokens_name_in_a_text_stays_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", LLAMA, eos_token="</s>")
    encoder = open_encoder(folder, TokenizerRecipe(), vocab_size=len(VOCABULARY))
    (ids,) = encoder.encode(["a xx</s>xx b"])
    assert 1 not in ids[:-1].tolist()
    assert ids.tolist()[0] == 0
    assert ids.tolist()[-1] == 1


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_a_special_token_that_a_text_spells_is_noticed(tmp_path: Path, ignore_merges: bool) -> None:
    pieces = {name: index for index, name in enumerate(["</s>", "[UNK]", *"</s>ab"])}
    model = models.BPE(pieces, [], unk_token="[UNK]", ignore_merges=ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>", "[UNK]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    recipe = TokenizerRecipe(document_begin=["</s>"], document_end=["</s>"])
    encoder = open_encoder(tmp_path, recipe, vocab_size=len(pieces))
    ordinary, unknown, spelled = encoder.encode(["a b", "a ? b", "a </s> b"])
    assert not encoder.holds_special_token(ordinary)
    assert not encoder.holds_special_token(unknown)
    assert encoder.holds_special_token(spelled) is ignore_merges


def test_a_vocabulary_without_a_still_shows_its_frame(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "我": 2, "们": 3}, []))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = LLAMA
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    encoder = open_encoder(tmp_path, TokenizerRecipe(), vocab_size=4)
    assert encoder.frame == DocumentFrame((0,), (1,))


def test_an_id_beyond_the_vocabulary_is_told_with_its_offset(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", LLAMA, eos_token="</s>")
    encoder = open_encoder(folder, TokenizerRecipe(), vocab_size=6)
    with pytest.raises(CorpusError, match="token id 6 at offset 2 of a document is beyond"):
        list(encoder.encode(["a hello"]))


def test_a_missing_or_broken_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="save_pretrained"):
        tokenizer_fingerprint(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"tokenizer\.json: it cannot be read"):
        frame(tmp_path)
