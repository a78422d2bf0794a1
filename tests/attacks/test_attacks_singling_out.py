"""Hidden rate, local cloaking and their two-sided forms against loops over all images; the alarm and its silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import flat, judged, knowledge
from attack_controls import is_silent, shuffled

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Embed, Judged, Pixels
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.singling_out import SinglingOutAttack, cloaking, euclidean_score, weighted_median
from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result, RunContext

CONTEXT = RunContext("x", "cxr64")


class Siamese(EmbeddingAttacker):
    """Compares eight mixtures of the pixels by their absolute difference; the mixtures are the seed's."""

    def __init__(self) -> None:
        super().__init__("snn", lambda a, b: -(a - b).abs().sum(-1))

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        mixing = np.random.default_rng(seed).standard_normal((1024, 8)).astype(np.float32)
        self.use(lambda pixels: flat(pixels) @ mixing)


def _lines(
    system: str, case: Judged | None = None, encoder: Embed = flat, seeds: Sequence[int] = (0, 1, 2)
) -> dict[str, Result]:
    attack = SinglingOutAttack(AttackerPool({"frozen": FrozenAttacker, "snn": Siamese}), seeds, n_boot=200)
    attack.fit(knowledge(system, frozen=encoder))
    return {r.name: r for r in attack.score(case or judged(system), CONTEXT)}


def _of(lines: dict[str, Result], figure: str, attacker: str = "frozen") -> Result:
    return lines[f"{figure}.T2.{attacker}.v1"]


@pytest.mark.parametrize("compare", [None, euclidean_score], ids=["unit", "as they are"])
def test_counts_are_those_of_a_loop(compare):
    rng = np.random.default_rng(0)
    released, real, patient = rng.standard_normal((30, 5)), rng.standard_normal((30, 5)), np.arange(30) // 2
    found = cloaking(released, real, patient, compare)
    r, x = (e / np.linalg.norm(e, axis=1, keepdims=True) if compare is None else e for e in (released, real))
    for i in range(30):
        own = np.linalg.norm(x[i] - r[i])
        assert found.avatars_nearer[i] == sum(np.linalg.norm(x[i] - r[j]) < own for j in range(30) if j != i)
        assert found.records_nearer[i] == sum(np.linalg.norm(x[i] - x[j]) < own for j in range(30) if j != i)
        nearest = min(range(30), key=lambda j: np.linalg.norm(x[i] - r[j]))
        assert found.nearest_is_person[i] == (patient[nearest] == patient[i])


def test_a_weighted_median_is_that_of_repeated_values():
    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 10):
        values, times = rng.integers(0, 6, n).astype(float), rng.integers(0, 4, n)
        times[0] += 1
        assert weighted_median(values, times.astype(float)) == np.median(np.repeat(values, times))
        assert weighted_median(values, times / 7) == np.median(np.repeat(values, times))


def test_patients_weigh_alike_where_the_line_says_so():
    whole = judged("noise")
    kept = np.r_[0:9, 9:72:3]  # three patients of three images, 21 of one
    real = whole.real.take(kept)
    release = Release("noise", whole.release.pixels[kept], tuple((i,) for i in range(len(kept))))
    lines = _lines("noise", Judged(real, release), seeds=(0,))
    patient = real.cohort.patient_index
    found = cloaking(flat(release.pixels), flat(real.pixels), patient)
    names = np.unique(patient)
    for figure, values in (("hidden_rate", found.hidden), ("hidden_rate_person", 1 - found.nearest_is_person)):
        by_patient = np.mean([values[patient == p].mean() for p in names])
        by = figure if figure.endswith("person") else f"{figure}_patient"
        assert _of(lines, by).value == pytest.approx(by_patient, abs=1e-6)
        assert _of(lines, by).extra["unit"] == "patient"
    assert _of(lines, "hidden_rate").value == pytest.approx(found.hidden.mean(), abs=1e-6)
    for side, values in (("avatars", found.avatars_nearer), ("records", found.records_nearer)):
        # each patient as often as every number of images divides
        alike = np.concatenate([np.repeat(values[patient == p], 3 // (patient == p).sum()) for p in names])
        assert _of(lines, f"local_cloaking_{side}_patient").value == np.median(alike)
        assert _of(lines, f"local_cloaking_{side}").value == np.median(values)
        assert _of(lines, f"local_cloaking_{side}").extra["unit"] == "image"
        low, high = (getattr(_of(lines, f"local_cloaking_{side}"), limit) for limit in ("low", "high"))
        assert 0 <= low < np.median(values) < high <= len(kept) - 1 and high > 1


def test_the_siamese_attackers_own_comparison_ranks():
    case = judged("noise")
    attacker = Siamese()
    attacker.fit(knowledge("noise"), 0)
    released, real = attacker.embeddings(case)
    distance = np.abs(real[:, None].astype(np.float64) - released[None]).sum(axis=2)
    nearer = [(distance[i] < distance[i, i]).sum() for i in range(len(real))]
    found = _of(_lines("noise", seeds=(0,)), "local_cloaking_avatars", "snn")
    assert found.value == np.median(nearer)
    cosine = cloaking(released, real, case.real.cohort.patient_index).avatars_nearer
    assert np.abs(cosine - nearer).max() > 5, "or the test could not tell the comparisons apart"


def test_figures_are_means_over_seeds():
    each = [_lines("noise", seeds=(seed,)) for seed in (0, 1, 2)]
    lines = _lines("noise")
    for name, line in lines.items():
        assert line.value == pytest.approx(np.mean([of_seed[name].value for of_seed in each]), abs=1e-5), name
    spread = _of(lines, "place_spread", "snn")
    assert spread.extra["attacker_seeds"] == [0, 1, 2]
    assert len({_of(of_seed, "place_spread", "snn").value for of_seed in each}) == 3
    assert spread.high - spread.low > 0 and _of(lines, "place_spread") == _replaced(each[0], "place_spread", [0, 1, 2])
    with pytest.raises(UsageError, match="GM-U316"):
        SinglingOutAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=())


def _replaced(lines: dict[str, Result], figure: str, seeds: list[int]) -> Result:
    line = _of(lines, figure)
    return replace(line, extra=line.extra | {"attacker_seeds": seeds})


def test_the_papers_lines_are_distances_of_embeddings_as_they_are():
    def encoder(pixels: Pixels) -> np.ndarray:
        """Embeddings whose length tells nothing of the patient, and much of the image."""
        lengths = np.exp(8.0 * pixels[:, :, ::7, ::5].std(axis=(1, 2, 3)) % 1.0)
        return (flat(pixels) * lengths[:, None]).astype(np.float32)

    case = judged("unchanged")
    blurred = case.real.pixels * 0.3 + 0.7 * judged("noise").release.pixels
    case = Judged(case.real, case.release.with_pixels(blurred.astype(np.float32)))
    lines = _lines("unchanged", case, encoder)
    released, real = (encoder(p).astype(np.float64) for p in (blurred.astype(np.float32), case.real.pixels))
    n = len(real)
    own = [np.linalg.norm(real[i] - released[i]) for i in range(n)]
    avatars = [sum(np.linalg.norm(real[i] - released[j]) < own[i] for j in range(n) if j != i) for i in range(n)]
    records = [sum(np.linalg.norm(real[i] - real[j]) < own[i] for j in range(n) if j != i) for i in range(n)]
    assert _of(lines, "paper_hidden_rate").value == pytest.approx(np.mean(np.array(avatars) > 0), abs=1e-6)
    assert _of(lines, "paper_local_cloaking_avatars").value == np.median(avatars)
    assert _of(lines, "paper_local_cloaking_records").value == np.median(records)
    assert _of(lines, "paper_hidden_rate").value != _of(lines, "hidden_rate").value
    low, _, high = _of(lines, "paper_hidden_rate").extra["embedding_lengths_0_50_100"]
    assert high > 1.5 * low and _of(lines, "paper_hidden_rate").extra["protocol"] == "paper"
    assert not any(name.startswith("paper_") and ".snn." in name for name in lines)


def test_unchanged_images_are_singled_out():
    lines = _lines("unchanged")
    for attacker in ("frozen", "snn"):
        for figure in ("hidden_rate", "hidden_rate_patient", "hidden_rate_person", "hidden_rate_two_sided"):
            assert _of(lines, figure, attacker).value == 0.0
        for side in ("avatars", "records"):
            for by in ("", "_patient"):
                median = _of(lines, f"local_cloaking_{side}{by}", attacker)
                assert median.value == median.low == median.high == 0.0, "it is 0 in every resample"
        assert _of(lines, "place_spread", attacker).low == pytest.approx(0.5)
    for figure in ("hidden_rate", "local_cloaking_avatars", "local_cloaking_records"):
        assert _of(lines, f"paper_{figure}").value == 0.0


def test_the_far_side_hides_from_the_published_figure_alone():
    lines = _lines("negative")
    assert _of(lines, "hidden_rate").value == 1.0 and _of(lines, "hidden_rate").low < 1.0
    assert _of(lines, "hidden_rate_two_sided").value == 0.0
    assert _of(lines, "place_spread").value == pytest.approx(0.5)


@pytest.mark.parametrize("case", [judged("noise"), shuffled(judged("unchanged"))], ids=["noise", "shuffled patients"])
def test_it_is_silent_where_the_own_image_is_any_image(case):
    lines = _lines("unchanged", case)
    n = len(case.real)
    for attacker in ("frozen", "snn"):
        assert is_silent(_of(lines, "hidden_rate_two_sided", attacker), 1.0 - 2.0 / n)
        assert is_silent(_of(lines, "place_spread", attacker), float(np.abs(np.arange(n) / (n - 1) - 0.5).mean()))
