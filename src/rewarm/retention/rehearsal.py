"""The pseudo-task: text sampled from the base itself, to be mixed in as if it were replay.

Batches are sampled and judged one after the other, each a pure function of (base, settings, batch
number) that stands on the disk as a part of its own; which near-duplicates are dropped is a
function of the parts in their order. So the same command goes on after a kill, and comes to the
same shard. The ids that were sampled are stored as they are: no text is made of them and tokenized
again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import MANIFEST_NAME, write_json
from rewarm.corpus.near_duplicates import NearDuplicates
from rewarm.corpus.rehearsed import FACTS, SHARD, Rehearsal, load_rehearsal
from rewarm.corpus.sealed import alone, seal
from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.tokenize import open_encoder, tokenizer_fingerprint
from rewarm.corpus.top_k import TopKWriter
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.records.facts import RehearsalFacts
from rewarm.retention.batch_maker import BatchMaker, Sampler
from rewarm.retention.degenerate import KEPT, REASONS
from rewarm.retention.parts import Part, part_path, read_part, write_part
from rewarm.retention.tally import RehearsalProgress, Runs, Tally

__all__ = ["rehearse"]

Integers = NDArray[np.integer]

# Of the samples of the first 512 and more; with fewer kept the road is not worth going.
_LEAST_KEPT_SHARE = 0.02
_JUDGED_AFTER_SAMPLES = 512
_TELL_EVERY_S = 0.5


def rehearse(
    rehearsal: Rehearsal,
    sampler: Sampler,
    *,
    say: Callable[[str], None],
    progress: Callable[[RehearsalProgress], None] | None = None,
) -> RehearsalFacts:
    """Return the facts of a source that the base makes up, sampling what is not there yet.

    Raises CorpusError where nearly everything is dropped or there are no prefixes, BaseModelError
    where the base cannot sample, EnvironmentFault where the disk refuses.
    """
    folder = rehearsal.folder
    facts = load_rehearsal(rehearsal)
    if facts is not None:
        shutil.rmtree(folder / "parts", ignore_errors=True)  # a kill may have left them
        return facts
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            return load_rehearsal(rehearsal) or _Making(rehearsal, sampler, say, progress).make()
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


class _Making:
    """One source while it is made."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        sampler: Sampler,
        say: Callable[[str], None],
        progress: Callable[[RehearsalProgress], None] | None,
    ) -> None:
        self._rehearsal = rehearsal
        self._recipe = rehearsal.recipe
        self._sampler = sampler
        self._say = say
        self._progress = progress
        self._encoder = open_encoder(
            rehearsal.base_folder, rehearsal.tokenizer_recipe, vocab_size=rehearsal.vocab_size
        )
        self._near = NearDuplicates(self._recipe.max_similarity)
        self._tally = Tally()
        self._batches: BatchMaker | None = None
        self._started = time.monotonic()
        self._told = 0.0
        self._sampled_here = 0

    def make(self) -> RehearsalFacts:
        """Sample until there is enough, then write the shard and what vouches for it."""
        folder = self._rehearsal.folder
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        for leftover in folder.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        kept: list[list[int]] = []
        for batch in itertools.count():
            kept.append(self._sift(self._part(batch)))
            self._tell(0, always=True)
            if self._tally.num_tokens >= self._recipe.tokens:
                break
            self._check_hopes()
        facts = self._assemble(kept)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        return facts

    def _part(self, batch: int) -> Part:
        """Return a batch's part, from the disk or sampled now."""
        path = part_path(self._rehearsal.folder, batch)
        part = read_part(path)
        if part is None:
            if self._batches is None:
                self._batches = BatchMaker(self._rehearsal, self._encoder, self._sampler)
                self._go_on(batch)
            part = self._batches.make(batch, self._tell)
            write_part(path, part)
            self._sampled_here += int(part.num_sampled.sum())
        return part

    def _go_on(self, batch: int) -> None:
        """Say from where it goes on, and whether that may change the last bits."""
        if batch:
            self._say(f"goes on after {batch} batches")
        others = [old for old in self._tally.placements if old != self._sampler.placement]
        if others:
            self._say(
                f"sampled so far on {'; '.join(others)}, now on {self._sampler.placement}: sums "
                "round otherwise, so the text may differ from that of one launch"
            )

    def _sift(self, part: Part) -> list[int]:
        """Return which documents of a part are kept, and count all of them."""
        tally = self._tally
        tally.placements[str(part.placement)] = None
        tally.elapsed_s += float(part.elapsed_s)
        tally.num_samples += len(part.lengths)
        tally.num_sampled_tokens += int(part.num_sampled.sum())
        kept: list[int] = []
        for row, reason in enumerate(part.reasons.tolist()):
            if REASONS[reason] != KEPT:
                tally.dropped[REASONS[reason]] += 1
            elif not self._near.add(part.signatures[row]):
                tally.dropped["near_duplicate"] += 1
            elif tally.num_tokens >= self._recipe.tokens:
                tally.num_surplus += 1
            else:
                kept.append(row)
                tally.num_tokens += int(part.lengths[row])
                tally.num_ended += bool(part.ended[row])
                tally.nats += float(part.nats[row])
                tally.num_scored += int(part.num_sampled[row])
        tally.num_documents += len(kept)
        return kept

    def _check_hopes(self) -> None:
        """Raise CorpusError where hardly any sample is kept."""
        tally = self._tally
        if tally.num_samples < _JUDGED_AFTER_SAMPLES:
            return
        if tally.num_documents < _LEAST_KEPT_SHARE * tally.num_samples:
            raise CorpusError.one(
                f"sources.{self._rehearsal.name}.rehearse",
                f"of {tally.num_samples} samples {tally.num_documents} are kept "
                f"({tally.by_reason()})",
                "raise temperature towards 1, give prefixes of real text, or loosen the bounds "
                "(min_tokens, max_repeat_share, min_compressed_share, max_similarity)",
            )

    def _tell(self, num_sampled: int, *, always: bool = False) -> None:
        """Tell how far it is, `num_sampled` tokens into the batch at work."""
        now = time.monotonic()
        if self._progress is None or (now - self._told < _TELL_EVERY_S and not always):
            return
        self._told = now
        self._progress(
            RehearsalProgress(
                source=self._rehearsal.name,
                num_tokens=min(self._tally.num_tokens, self._recipe.tokens),
                wanted_tokens=self._recipe.tokens,
                num_sampled_tokens=self._sampled_here + num_sampled,
                elapsed_s=now - self._started,
                dropped_share=self._tally.dropped_share,
            )
        )

    def _assemble(self, kept: list[list[int]]) -> RehearsalFacts:
        """Write shard, ids and distributions of what is kept, then facts and manifest, last."""
        folder = self._rehearsal.folder
        runs = Runs(self._recipe.tokens)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
        try:
            self._write(temporary / SHARD, kept, runs)
            for path in sorted(temporary.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        facts = self._facts(runs)
        write_json(folder / FACTS, facts.model_dump(mode="json"))
        about = {
            "key": self._rehearsal.key,
            "base": str(self._rehearsal.base_folder),
            "settings": self._recipe.model_dump(mode="json"),
            "tokenizer_fingerprint": tokenizer_fingerprint(self._rehearsal.base_folder),
        }
        seal(folder, (), about)
        return facts

    def _write(self, prefix: Path, kept: list[list[int]], runs: Runs) -> None:
        vocab_size, num_top = self._rehearsal.vocab_size, self._recipe.top_k_logits

        def documents(writer: TopKWriter | None) -> Iterator[Integers]:
            with Path(f"{prefix}.ids").open("w", encoding="utf-8", newline="\n") as ids:
                for batch, rows in enumerate(kept):
                    if not rows:
                        continue
                    part = self._part(batch)
                    for row, tokens in zip(rows, part.documents(rows), strict=True):
                        ids.write(json.dumps(f"batch {batch}, sample {row}") + "\n")
                        runs.add(tokens)
                        if writer is not None:
                            span = slice(int(part.starts[row]), int(part.starts[row + 1]))
                            writer.add(part.top_ids[span], part.top_log_probs[span])
                        yield tokens

        if num_top:
            with TopKWriter(prefix, self._tally.num_tokens, num_top, vocab_size) as writer:
                write_shard(prefix, documents(writer), dtype_for(vocab_size))
        else:
            write_shard(prefix, documents(None), dtype_for(vocab_size))

    def _facts(self, runs: Runs) -> RehearsalFacts:
        tally = self._tally
        return RehearsalFacts(
            key=self._rehearsal.key,
            folder=str(self._rehearsal.folder),
            num_samples=tally.num_samples,
            num_documents=tally.num_documents,
            num_tokens=tally.num_tokens,
            dropped=dict(sorted(tally.dropped.items())),
            num_surplus=tally.num_surplus,
            num_sampled_tokens=tally.num_sampled_tokens,
            num_ended=tally.num_ended,
            distinct_share=runs.distinct_share,
            nats_per_token=tally.nats / max(1, tally.num_scored),
            elapsed_s=tally.elapsed_s,
            placements=tuple(tally.placements),
            warnings=tuple(tally.warnings()),
        )
