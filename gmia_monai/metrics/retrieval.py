"""Identification: each image asks the other images of its folder who it shows.

A query is an image whose patient has another image in the same folder; its gallery is every other image of that folder.
The queries may be another picture of the same images (released ones, say): the gallery still leaves out the own one.
MAP@R follows Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import gammaln
from scipy.stats import hypergeom

from gmia_monai.errors import UsageError

__all__ = ["Identification", "identify"]

_CHUNK = 512


@dataclass(frozen=True)
class Identification:
    """What each query found.

    Attributes:
        query: index of each query image, shape ``q``.
        patient: its patient, shape ``q``.
        rank: place of the best match in the gallery, from 1; candidates of equal score count one half, so that a
            constant embedding lands in the middle. Shape ``q``.
        above: how many images of other people come before each of its matches, best match first, ties in a fixed random
            order; -1 beyond its last match. Shape ``q r``.
        gallery: number of gallery images, shape ``q``.
        n_matches: how many of them show the query's patient, shape ``q``.
    """

    query: Int[np.ndarray, "q"]
    patient: Shaped[np.ndarray, "q"]
    rank: Float[np.ndarray, "q"]
    above: Int[np.ndarray, "q r"]
    gallery: Int[np.ndarray, "q"]
    n_matches: Int[np.ndarray, "q"]

    @cached_property
    def average_precision_at_r(self) -> Float[np.ndarray, "q"]:
        """Of each query, in [0, 1]; ties in a fixed random order."""
        hits = np.arange(1, self.above.shape[1] + 1)
        place = self.above + hits
        counted = (self.above >= 0) & (place <= self.n_matches[:, None])
        return np.where(counted, hits / np.maximum(place, 1), 0.0).sum(axis=1) / np.maximum(self.n_matches, 1)

    def weights(self, per_patient: bool) -> Float[np.ndarray, "q"]:
        """Weights of the queries: equal for images, or equal for patients."""
        if not per_patient:
            return np.ones(len(self.query))
        _, member, count = np.unique(self.patient, return_inverse=True, return_counts=True)
        return 1.0 / count[member]

    def rank_k(self, k: int = 1, *, per_patient: bool = False) -> float:
        """Share of queries with a match among the first ``k`` of the gallery; ``nan`` without queries."""
        return self._mean((self.rank < k + 0.5).astype(np.float64), per_patient)

    def rank_k_at_gallery(self, size: int, k: int = 1, *, per_patient: bool = False) -> float:
        """Share of queries with a match among the first ``k``, were the gallery the best match and ``size - 1`` random
        images of other people.

        The expectation over all such galleries, by the hypergeometric distribution; queries whose gallery has fewer
        others take all of them.

        Raises:
            UsageError: GM-U222 for a size below 1.
        """
        others = self._others(size)
        above = np.clip(np.floor(self.rank - 0.5), 0, others).astype(int)  # ties count one half, rounded down
        found = hypergeom.cdf(k - 1, np.maximum(others, 1), above, np.minimum(size - 1, others))
        return self._mean(found, per_patient)

    def map_at_r_at_gallery(self, size: int, *, per_patient: bool = False) -> float:
        """Mean average precision at R, were the gallery all matches of the query and as many random images of other
        people as make it ``size`` images; in [0, 1].

        The expectation over all such galleries: before the j-th match stand as many others as a hypergeometric draw
        from those before it, and average precision is a sum over matches. Queries whose gallery has fewer others take
        all of them; where the matches alone are ``size`` or more, there are no others.

        Raises:
            UsageError: GM-U222 for a size below 1.
        """
        others = self._others(size)
        drawn = np.clip(size - self.n_matches, 0, others)
        log_factorial = gammaln(np.arange(int(others.max(initial=0)) + 1) + 1.0)
        query, column = np.nonzero(self.above >= 0)
        hits, relevant = column + 1, self.n_matches[query]
        total = np.zeros(len(query))
        for before in range(int(relevant.max(initial=0))):
            at = np.flatnonzero(hits + before <= relevant)
            row = query[at]
            chance = _chance_of(before, self.above[row, column[at]], drawn[row], others[row], log_factorial)
            total[at] += hits[at] / (hits[at] + before) * chance
        found = np.bincount(query, total, len(self.query)) / np.maximum(self.n_matches, 1)
        return self._mean(found, per_patient)

    def _others(self, size: int) -> Int[np.ndarray, "q"]:
        """Images of other people in each query's gallery; refuses a size that no gallery has."""
        if size < 1:
            raise UsageError("GM-U222", "a gallery holds at least one image", got=size)
        return self.gallery - self.n_matches

    def precision_at_1(self, *, per_patient: bool = False) -> float:
        """Share of queries whose nearest image shows the same patient."""
        return self.rank_k(1, per_patient=per_patient)

    def map_at_r(self, *, per_patient: bool = False) -> float:
        """Mean average precision at R, R the number of matches in the gallery; in [0, 1]."""
        return self._mean(self.average_precision_at_r, per_patient)

    def rank_k_by_chance(self, k: int = 1, *, per_patient: bool = False) -> float:
        """:meth:`rank_k` where galleries are in random order: one less the chance that no match is among ``k``."""
        return self._mean(hypergeom.sf(0, self.gallery, self.n_matches, np.minimum(k, self.gallery)), per_patient)

    def rank_k_by_chance_at_gallery(self, size: int, k: int = 1, *, per_patient: bool = False) -> float:
        """:meth:`rank_k_at_gallery` where galleries are in random order.

        The best of ``r`` matches stays whatever the size, so that chance is more than one in ``size``: it comes among
        the first ``k`` where any of the ``r`` does, in a random order of them and the ``size - 1`` others.

        Raises:
            UsageError: GM-U222 for a size below 1.
        """
        drawn = self.n_matches + np.minimum(size - 1, self._others(size))
        return self._mean(hypergeom.sf(0, drawn, self.n_matches, np.minimum(k, drawn)), per_patient)

    def map_at_r_by_chance(self, *, per_patient: bool = False) -> float:
        """:meth:`map_at_r` where galleries are in random order.

        The i-th place holds a match with chance ``r / g``, and each of the ``i - 1`` before it then holds another with
        chance ``(r - 1) / (g - 1)``; average precision is the sum over ``i`` up to ``r`` of the precision there where
        it is a match, over ``r``.
        """
        return self._mean(self._average_precision_by_chance(self.gallery), per_patient)

    def map_at_r_by_chance_at_gallery(self, size: int, *, per_patient: bool = False) -> float:
        """:meth:`map_at_r_at_gallery` where galleries are in random order.

        Raises:
            UsageError: GM-U222 for a size below 1.
        """
        drawn = self.n_matches + np.clip(size - self.n_matches, 0, self._others(size))
        return self._mean(self._average_precision_by_chance(drawn), per_patient)

    def _average_precision_by_chance(self, gallery: Int[np.ndarray, "q"]) -> Float[np.ndarray, "q"]:
        g, r = gallery.astype(np.float64), np.maximum(self.n_matches, 1).astype(np.float64)
        another = (r - 1) / np.maximum(g - 1, 1)
        harmonic = np.cumsum(1.0 / np.arange(1, int(r.max(initial=1)) + 1))[r.astype(int) - 1]
        return np.asarray((harmonic + (r - harmonic) * another) / g)

    def _mean(self, values: Float[np.ndarray, "q"], per_patient: bool) -> float:
        return float(np.average(values, weights=self.weights(per_patient))) if len(values) else float("nan")


def identify(
    embeddings: Float[np.ndarray, "n d"],
    patients: Shaped[np.ndarray, "n"],
    folders: Shaped[np.ndarray, "n"] | None = None,
    seed: int = 0,
    *,
    queries: Float[np.ndarray, "n d"] | None = None,
    asked: Bool[np.ndarray, "n"] | None = None,
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Identification:
    """Query each image against the other images of its folder.

    Args:
        embeddings: one finite vector an image, any length but zero.
        patients: patient of each image.
        folders: folder of each image; one folder where absent.
        seed: seed of the order in which ties are broken for MAP@R.
        queries: embeddings of the queries where they are other pictures than the gallery's; same positions.
        asked: which images are queries, if their patient has another; None: all.
        compare: maps ``[q, d]`` and ``[g, d]`` to scores ``[q, g]``; None for the cosine.

    Raises:
        UsageError: GM-U221 where lengths differ or an embedding is not finite.
    """
    embeddings, patients = np.asarray(embeddings, dtype=np.float64), np.asarray(patients)
    queries = embeddings if queries is None else np.asarray(queries, dtype=np.float64)
    asked = np.ones(len(patients), dtype=bool) if asked is None else np.asarray(asked, dtype=bool)
    folders = np.zeros(len(patients), dtype=int) if folders is None else np.asarray(folders)
    lengths = {len(embeddings), len(patients), len(folders), len(queries), len(asked)}
    if len(lengths) != 1 or embeddings.ndim != 2 or queries.shape != embeddings.shape:
        raise UsageError("GM-U221", "embeddings, patients and folders do not fit", expected="one of each an image")
    if not (np.isfinite(embeddings).all() and np.isfinite(queries).all()):
        raise UsageError("GM-U221", "an embedding is not finite", expected="finite vectors")
    if compare is None:
        embeddings, queries, compare = _unit(embeddings), _unit(queries), lambda a, b: a @ b.T
    rng = np.random.default_rng(seed)
    query, rank, above, gallery, matches = [], [], [], [], []
    for folder in np.unique(folders):
        inside = rng.permutation(np.flatnonzero(folders == folder))  # the stable sort below then breaks ties at random
        for start in range(0, len(inside), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(inside)))
            similarity = np.array(compare(queries[inside[rows]], embeddings[inside]), dtype=np.float64)
            similarity[np.arange(len(rows)), rows] = -np.inf
            match = patients[inside[rows], None] == patients[None, inside]
            match[np.arange(len(rows)), rows] = False
            has = match.any(axis=1) & asked[inside[rows]]
            query.append(inside[rows[has]])
            rank.append(_mid_rank(similarity[has], match[has]))
            above.append(_others_above(similarity[has], match[has]))
            gallery.append(np.full(int(has.sum()), len(inside) - 1))
            matches.append(match[has].sum(axis=1))
    index = np.concatenate(query) if query else np.zeros(0, dtype=int)
    if len(index) == 0:
        return Identification(index, patients[index], np.zeros(0), np.zeros((0, 0), dtype=int), index, index)
    order = np.argsort(index)
    most = max(part.shape[1] for part in above)
    above = [np.pad(part, ((0, 0), (0, most - part.shape[1])), constant_values=-1) for part in above]
    columns = [np.concatenate(parts)[order] for parts in (rank, above, gallery, matches)]
    return Identification(index[order], patients[index[order]], *columns)


def _chance_of(
    found: int,
    marked: Int[np.ndarray, "m"],
    drawn: Int[np.ndarray, "m"],
    of: Int[np.ndarray, "m"],
    log_factorial: Float[np.ndarray, "f"],
) -> Float[np.ndarray, "m"]:
    """Chance that so many marked ones are among those drawn without replacement: the hypergeometric distribution, some
    hundred times faster than scipy's."""
    rest, missed = drawn - found, of - marked
    possible = (found <= marked) & (rest >= 0) & (rest <= missed)
    chance = np.zeros(len(marked))
    if not possible.any():
        return chance
    marked, drawn, of, rest, missed = (x[possible] for x in (marked, drawn, of, rest, missed))
    ways = log_factorial[marked] - log_factorial[found] - log_factorial[marked - found]
    ways += log_factorial[missed] - log_factorial[rest] - log_factorial[missed - rest]
    chance[possible] = np.exp(ways - log_factorial[of] + log_factorial[drawn] + log_factorial[of - drawn])
    return chance


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _mid_rank(similarity: Float[np.ndarray, "q g"], match: Shaped[np.ndarray, "q g"]) -> Float[np.ndarray, "q"]:
    best = np.where(match, similarity, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    # equal vectors differ by rounding in the product, so closer than that is a tie
    above = (similarity > best + 1e-12) & ~match
    tied = (np.abs(similarity - best) <= 1e-12) & ~match
    return 1.0 + above.sum(axis=1) + 0.5 * tied.sum(axis=1)


def _others_above(similarity: Float[np.ndarray, "q g"], match: Shaped[np.ndarray, "q g"]) -> Int[np.ndarray, "q r"]:
    """As :attr:`Identification.above`; what comes first among equals stays first."""
    order = np.argsort(-np.round(similarity, 12), axis=1, kind="stable")
    hit = np.take_along_axis(match, order, axis=1)
    query, place = np.nonzero(hit)
    column = np.cumsum(hit, axis=1)[query, place] - 1
    above = np.full((len(match), int(hit.sum(axis=1).max(initial=0))), -1)
    above[query, column] = place - column
    return above
