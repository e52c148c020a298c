"""Nearest neighbours against all pairs, whatever the pieces; vectors against dictionaries."""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.corpus.latent import LatentEmbedding
from rewarm.corpus.near_copies import without_near_copies
from rewarm.corpus.near_duplicates import NUM_HASHES
from rewarm.corpus.neighbours import Candidates, DenseSearch, Nearest, TermSearch, quantised
from rewarm.corpus.term_vectors import TermWeights
from rewarm.corpus.words import spell_words
from tests.support.extras import skip_without

skip_without("scipy", "sklearn", "faiss")

WORDS = ("heart", "lung", "liver", "blood", "cell", "drug", "trial", "dose", "the", "of", "a")


def texts(count: int, seed: int, words: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, words))) for _ in range(count)]


def pairs_of(table: np.ndarray, first: int, last: int) -> Candidates:
    queries, documents = np.meshgrid(np.arange(len(table)), np.arange(first, last), indexing="ij")
    return Candidates(
        queries.ravel(), documents.ravel(), table[:, first:last].ravel().astype(np.float64)
    )


def by_looking(table: np.ndarray, hashes: np.ndarray, k: int) -> list[list[int]]:
    found = []
    for row in table.tolist():
        order = sorted(range(len(row)), key=lambda d: (-row[d], int(hashes[d])))
        found.append([d for d in order[:k] if row[d] > 0])
    return found


@given(st.data())
def test_the_nearest_are_those_of_all_pairs_whatever_the_pieces(data: st.DataObject) -> None:
    num_queries, num_documents = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 14))
    k = data.draw(st.integers(1, 5))
    few = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.5, 1.0])
    rows = st.lists(few, min_size=num_documents, max_size=num_documents)
    table = np.array(data.draw(st.lists(rows, min_size=num_queries, max_size=num_queries)))
    hashes = np.array(data.draw(st.permutations(range(num_documents))), dtype=np.uint64)
    cuts = data.draw(st.lists(st.integers(0, num_documents), max_size=4))
    edges = sorted({0, *cuts, num_documents})
    nearest = Nearest.empty(num_queries, k)
    for first, last in itertools.pairwise(edges):
        nearest.add(pairs_of(table, first, last), hashes)
    got = [[int(d) for d in row if d >= 0] for row in nearest.documents]
    assert got == by_looking(table, hashes, k)
    for row, documents, similarities in zip(
        table, nearest.documents, nearest.similarities, strict=True
    ):
        wanted = [row[d] if d >= 0 else 0.0 for d in documents]
        assert similarities.tolist() == wanted


def weighted(
    counted: Sequence[str], corpus: Sequence[str], *, query: bool
) -> list[dict[str, float]]:
    """The vectors of texts by the formula, in plain dictionaries."""
    having = Counter(word for text in corpus for word in set(spell_words(text)))
    asked = Counter(word for text in counted for word in set(spell_words(text)))
    mean = sum(len(spell_words(text)) for text in corpus) / len(corpus)
    found = []
    for text in counted:
        counts = Counter(spell_words(text))
        vector = {}
        for word, count in counts.items():
            left = len(corpus) - having[word]
            root = math.sqrt(math.log(1 + (left + 0.5) / (having[word] + 0.5)))
            if query:
                vector[word] = root * (1 - asked[word] / (len(counted) + 1))
            else:
                room = 1.2 * (0.25 + 0.75 * sum(counts.values()) / mean)
                vector[word] = root * 2.2 * count / (count + room)
        length = math.sqrt(sum(value**2 for value in vector.values())) ** (1 if query else 0.5) or 1
        found.append({word: value / length for word, value in vector.items()})
    return found


def test_similarities_are_those_of_the_formula() -> None:
    corpus, queries = texts(60, 0), texts(9, 1, words=4)
    search = TermSearch(TermWeights.fit([corpus[:13], corpus[13:]]), queries, 60)
    (found,) = search.candidates([search.vectors(corpus)], np.zeros(9))
    got = dict(
        zip(
            zip(found.queries.tolist(), found.documents.tolist(), strict=True),
            found.similarities.tolist(),
            strict=True,
        )
    )
    documents = weighted(corpus, corpus, query=False)
    num_near = 0
    for number, query in enumerate(weighted(queries, corpus, query=True)):
        for other, document in enumerate(documents):
            wanted = sum(value * document.get(word, 0.0) for word, value in query.items())
            assert got.get((number, other), 0.0) == pytest.approx(wanted, rel=1e-12, abs=1e-15)
            num_near += wanted > 0
    assert num_near > 100


def test_a_latent_embedding_projects_onto_the_main_components() -> None:
    """Against numpy's whole SVD of the same vectors."""
    corpus, queries = texts(30, 4), texts(5, 5, words=4)
    weights = TermWeights.fit([corpus])
    sample = weights.documents(corpus)
    latent = LatentEmbedding.fit(weights, sample)
    told = np.flatnonzero(np.bincount(sample.indices, minlength=sample.shape[1]) >= 2)
    documents = sample[:, told].toarray()
    components = np.linalg.svd(documents, full_matrices=False)[2][: len(told) - 1].T
    asked = weights.queries(queries)[:, told].toarray()
    wanted = (asked @ components) @ (documents @ components).T
    found = latent.queries(queries) @ latent.documents(corpus).T
    assert found == pytest.approx(wanted, abs=1e-5)
    assert np.abs(found - asked @ documents.T).max() > 1e-3  # one component is left out


def all_nearest(
    search: TermSearch | DenseSearch, corpus: Sequence[str], pieces: int, num_queries: int
) -> Nearest:
    hashes = np.array([zlib.crc32(text.encode()) for text in corpus], dtype=np.uint64)
    nearest = Nearest.empty(num_queries, 4)
    step = -(-len(corpus) // pieces)
    for first in range(0, len(corpus), step):
        vectors = [search.vectors(corpus[first : first + step])]
        for found in search.candidates(vectors, nearest.floors):
            nearest.add(found._replace(documents=found.documents + first), hashes)
    return nearest


class Whole:
    """An embedding that has few vectors, random ones, by the texts' lengths."""

    def __init__(self, num_vectors: int = 17) -> None:
        self.num_vectors = num_vectors

    def documents(self, texts: Sequence[str], /) -> np.ndarray:
        seeds = [len(text) % self.num_vectors for text in texts]
        rows = [np.random.default_rng(seed).normal(size=32) for seed in seeds]
        return np.array(rows, dtype=np.float32)

    queries = documents


@pytest.mark.parametrize("kind", ["terms", "dense"])
def test_pieces_change_no_bit(kind: str) -> None:
    corpus, queries = sorted(set(texts(150, 2))), texts(7, 3)
    search: TermSearch | DenseSearch
    if kind == "terms":
        search = TermSearch(TermWeights.fit([corpus]), queries, 4)
    else:
        search = DenseSearch(Whole(), queries, 4)
    one = all_nearest(search, corpus, 1, 7)
    for pieces in (2, 7, 50):
        other = all_nearest(search, corpus, pieces, 7)
        assert other.documents.tolist() == one.documents.tolist()
        assert other.similarities.tobytes() == one.similarities.tobytes()


def test_a_dense_search_misses_none_that_is_as_near() -> None:
    """3 different vectors for all texts: at the edge most are equally near."""
    corpus, queries = sorted(set(texts(150, 2))), texts(7, 3)
    nearest = all_nearest(DenseSearch(Whole(3), queries, 4), corpus, 3, 7)
    table = (
        quantised(Whole(3).queries(queries)).astype(np.int64)
        @ quantised(Whole(3).documents(corpus)).astype(np.int64).T
    )
    hashes = np.array([zlib.crc32(text.encode()) for text in corpus], dtype=np.uint64)
    assert [[int(d) for d in row if d >= 0] for row in nearest.documents] == by_looking(
        table, hashes, 4
    )
    assert nearest.similarities[0, 0] == table[0].max() / 2**22


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([2, 32, 384, 1024]))
def test_inner_products_of_whole_numbers_are_exact_in_any_order(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = quantised(rng.normal(size=(2, dim)).astype(np.float32))
    assert (one == np.rint(one)).all()
    exact = int(one.astype(np.int64) @ other.astype(np.int64))
    order = rng.permutation(dim)
    added = np.float32(0)
    for product in (one * other)[order]:
        added += product
    assert float(added) == exact == float(one @ other)
    assert int((one.astype(np.int64) ** 2).sum()) < 2**24


def signature(*parts: tuple[int, int]) -> np.ndarray:
    """Values by (how many places, value)."""
    found = np.concatenate([np.full(count, value, dtype=np.uint32) for count, value in parts])
    assert len(found) == NUM_HASHES
    return found


def test_near_copies_of_a_nearer_one_that_stays_are_dropped(tmp_path: Path) -> None:
    """1 is like 0, 2 like 1 but not like 0; 3 like 0, but no question has both."""
    signatures = [
        signature((128, 1)),
        signature((110, 1), (18, 2)),
        signature((90, 1), (38, 2)),
        signature((120, 1), (8, 3)),
    ]
    nearest = Nearest(np.array([[0, 1, 2, -1], [3, -1, -1, -1]]), np.ones((2, 4)))
    places = np.array([0, 1, 2, 3])

    def stays(order: np.ndarray, most: float) -> list[bool]:
        found = without_near_copies(
            nearest,
            order,
            signatures.__getitem__,
            scratch=tmp_path / "pieces" / "s.npy",
            max_similarity=most,
        )
        return [bool(value) for value in found]

    assert stays(places, 0.8) == [True, False, True, True]
    assert stays(places, 0.6) == [True, False, False, True]
    assert stays(np.array([2, 1, 0, 3]), 0.8) == [True, False, True, True]
    assert stays(np.array([1, 0, 2, 3]), 0.8) == [False, True, False, True]
    assert stays(places, 1.0) == [True] * 4


def by_batches(count: int) -> Iterator[list[str]]:
    for number in range(count):
        yield texts(10, number)


def test_weights_are_of_all_batches() -> None:
    many = TermWeights.fit(by_batches(5))
    one = TermWeights.fit([[text for batch in by_batches(5) for text in batch]])
    assert (many.document_counts == one.document_counts).all()
    assert (many.num_documents, many.mean_words) == (one.num_documents, one.mean_words)
