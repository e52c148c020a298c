"""A model in memory as lm-evaluation-harness wants one: likelihoods, rolling ones, continuations.

Text is read as the harness's own `HFLM` reads it (the tokenizer's special tokens, the same cuts),
so that its figures are the published kind; the numbers come from this package's evaluator, which
takes a model as it is while it trains, on many ranks too. To the harness there is one process: all
ranks are asked the same, share the batches between them, and get the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from rewarm.evaluation.likelihood import Scorer
from rewarm.evaluation.passages import Passage
from rewarm.evaluation.suite import batches_of
from rewarm.model.loss import token_losses_and_misses

__all__ = ["LiveModel"]

_DEFAULT_NEW_TOKENS = 256  # as the harness's own model has it
_PROMPTS_PER_BATCH = 16

Request = tuple[tuple[str, str], list[int], list[int]]
"""Texts of context and continuation, and their tokens."""


class LiveModel(TemplateLM):  # type: ignore[misc]  # lm_eval is untyped here
    """Answers the harness's requests with a scorer's model. Methods are collective."""

    backend = "causal"

    def __init__(self, scorer: Scorer, tokenizer: Any, *, max_length: int) -> None:
        """`tokenizer` is transformers' own of the model; `max_length` its longest input."""
        super().__init__()
        self._scorer = scorer
        self.tokenizer = tokenizer
        self._max_length = max_length

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """What the harness's caches of requests go by."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages as the model's own template writes them."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return tokens; special ones as the tokenizer has it, but none twice."""
        told: dict[str, bool] = {}
        if add_special_tokens is not None:
            told["add_special_tokens"] = add_special_tokens
        elif has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            told["add_special_tokens"] = False
        return list(self.tokenizer.encode(string, verbose=False, **told))

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], **_: Any
    ) -> list[tuple[float, bool]]:
        """Return log p(continuation | context) in nats, and whether greedy decoding writes it."""
        return self._scored([self._passage(context, rest) for _, context, rest in requests])

    def _passage(self, context: list[int], continuation: list[int]) -> Passage:
        """Return tokens of which the continuation is scored; what is too long loses its beginning.

        A continuation that leaves no room for context is scored from its second token on.
        """
        tokens = (context + continuation)[-(self._max_length + 1) :]
        return Passage(
            torch.tensor(tokens, dtype=torch.int64).numpy(), max(1, len(tokens) - len(continuation))
        )

    def _scored(self, passages: Sequence[Passage]) -> list[tuple[float, bool]]:
        batches = batches_of(passages, sequence_length=self._max_length, stride=self._max_length)
        nats, misses = self._scorer.sums(
            token_losses_and_misses, batches, len(passages), num_figures=2
        )
        return [(-float(n), bool(m == 0)) for n, m in zip(nats, misses, strict=True)]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return log p of each whole text, in windows that do not overlap, as the harness cuts."""
        passages: list[Passage] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                passages.append(self._passage(context, continuation))
                owners.append(number)
        sums = [0.0] * len(requests)
        for owner, (log_likelihood, _) in zip(owners, self._scored(passages), strict=True):
            sums[owner] += log_likelihood
        return sums

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes after each context, up to the first stop sequence."""
        found = [""] * len(requests)
        for numbers in _groups(requests):
            for start in range(0, len(numbers), _PROMPTS_PER_BATCH):
                some = numbers[start : start + _PROMPTS_PER_BATCH]
                contexts = [requests[number].args[0] for number in some]
                settings = requests[some[0]].args[1]
                for number, text in zip(some, self._written(contexts, settings), strict=True):
                    found[number] = text
        return found

    def _written(self, contexts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
        told: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings), _DEFAULT_NEW_TOKENS))
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(told.pop("until", None), eos=end)
        num_new = int(told.pop("max_gen_toks"))
        room = self._max_length - num_new
        if room <= 0:
            raise ValueError(
                f"it asks for {num_new} new tokens, and the model's longest input is "
                f"{self._max_length}"
            )
        prompts = [self.tok_encode(context)[-room:] for context in contexts]
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.eot_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        if told.get("temperature") == 0.0:
            told["do_sample"] = False
        if told.get("do_sample") is False:
            told.pop("temperature", None)
        device = self._scorer.device

        def write(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            written: Tensor = model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                max_new_tokens=num_new,
                stop_strings=[stop for stop in stops if stop] or None,
                tokenizer=self.tokenizer,
                pad_token_id=self.eot_token_id,
                use_cache=True,
                **told,
            )
            return written

        tokens = self._scorer.within(write, ids.to(device), mask.to(device))[:, longest:].tolist()
        return [
            postprocess_generated_text(
                self.tokenizer.decode(row, skip_special_tokens=True), stops, None
            )
            for row in tokens
        ]


def _groups(requests: Sequence[Instance]) -> Iterator[list[int]]:
    """Yield the numbers of requests that are to be written alike, longest contexts first."""
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(repr(sorted(request.args[1].items(), key=repr)), []).append(number)
    for numbers in groups.values():
        yield sorted(numbers, key=lambda number: (-len(requests[number].args[0]), number))
