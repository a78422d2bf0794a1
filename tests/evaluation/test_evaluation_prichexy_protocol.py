"""PriCheXy-Net's own evaluation: its pairs, its attackers, its classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, real_images, released
from torch import Tensor, nn

from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.attacks.training import Schedule
from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.prichexy_protocol import (
    PrichexyProtocol,
    balanced_pairs,
    evaluate_prichexy_protocol,
)
from gmia_monai.metrics.results import RunContext
from gmia_monai.networks import IdentityNet, SiameseVerifier, save_network

CONTEXT = RunContext("x", "test")


class _Sex(nn.Module):
    """The lower half against the upper one, and a second logit that says nothing."""

    def forward(self, image: Tensor) -> Tensor:
        lower = image[..., SIZE // 2 :, :].mean(dim=(1, 2, 3)) - image[..., : SIZE // 2, :].mean(dim=(1, 2, 3))
        return torch.stack([lower, torch.zeros_like(lower)], dim=1)


def _quick(**more: object) -> PrichexyProtocol:
    how = {"seeds": (0, 1), "schedule": Schedule(24, 2e-3, validate_every=12), "architecture": "small", "n_boot": 50}
    return PrichexyProtocol(**{**how, "batch_size": 16, **more})  # type: ignore[arg-type]


def _parts(system: str, seed: int = 0) -> dict[str, Judged]:
    roles = {"training": "a", "choice": "v", "judged": "t"}
    return {name: released(real_images(role), system, seed + i) for i, (name, role) in enumerate(roles.items())}


def test_pairs_are_balanced_fixed_and_within_a_folder():
    cohort = real_images("a").cohort
    pairs = balanced_pairs(cohort, 40, 1)
    assert len(pairs) == 40 and pairs.n_positives == 20
    assert np.array_equal(cohort.patient_index[pairs.first] == cohort.patient_index[pairs.second], pairs.same)
    assert (pairs.first != pairs.second).all()
    again, other = balanced_pairs(cohort, 40, 1), balanced_pairs(cohort, 40, 2)
    assert np.array_equal(pairs.first, again.first) and not np.array_equal(pairs.first, other.first)
    every = balanced_pairs(cohort, 10_000, 1)
    assert every.n_positives == every.n_negatives == 24 * 3, "all that there are"
    assert pairs.weight[pairs.same].sum() == pytest.approx(1)


def test_unchanged_images_are_told_apart_and_noise_is_not():
    (line,) = evaluate_prichexy_protocol(**_parts("unchanged"), context=CONTEXT, protocol=_quick())
    assert line.name == "prichexy_protocol_auc.v1" and line.negatives == "balanced" and line.attacker == "snn_fresh"
    assert line.value > 0.75 and line.low < line.value < line.high
    aucs = line.extra["aucs"]
    assert line.value == pytest.approx(np.mean(aucs), abs=1e-5) and aucs[0] != aucs[1]
    assert line.extra["sd"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-5)
    assert line.n_patients == 24 and line.extra["n_pairs"] == {"training": 144, "choice": 144, "judged": 144}
    assert line.extra["start"] == "scratch"
    how = _quick(seeds=(0,), schedule=Schedule(10, 2e-3, validate_every=10))
    (noise,) = evaluate_prichexy_protocol(**_parts("noise"), context=CONTEXT, protocol=how)
    assert noise.value == pytest.approx(0.5, abs=0.12)


def test_the_same_seed_gives_the_same_figure_whatever_the_global_generator():
    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        how = _quick(seeds=(3,), schedule=Schedule(4, 2e-3, validate_every=2))
        (line,) = evaluate_prichexy_protocol(**_parts("unchanged"), context=CONTEXT, protocol=how)
        values.append(line.value)
    assert values[0] == values[1]
    assert line.extra["sd"] is None


def test_the_attacker_may_start_from_recorded_weights(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        verifier = SiameseVerifier("small", 16)
    path = tmp_path / "siamese.safetensors"
    save_network(path, verifier, {"architecture": "small", "features": 16})
    how = _quick(init=path, schedule=Schedule(0))
    network = how.verifier()
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in verifier.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    (line,) = evaluate_prichexy_protocol(**_parts("unchanged"), context=CONTEXT, protocol=how)
    assert line.extra["start"] == "siamese" and line.extra["aucs"][0] == line.extra["aucs"][1], "nothing was learned"
    other = tmp_path / "identity.safetensors"
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 16}
    save_network(other, IdentityNet(**arguments), arguments)
    with pytest.raises(UsageError, match="GM-U377"):
        _quick(init=other).verifier()


def test_the_classifier_looks_at_released_test_images():
    parts = _parts("unchanged")
    cohort = parts["judged"].real.cohort
    labels = cohort.label_matrix(["Effusion"])[:, 0]
    logits = _Sex()(torch.from_numpy(parts["judged"].real.pixels))[:, 0].numpy()
    wins = (logits[labels == 1][:, None] > logits[labels == 0][None, :]).mean()
    how = _quick(seeds=(0,), schedule=Schedule(0), min_positives=20)
    at = {"context": CONTEXT, "protocol": how, "classifier": _Sex(), "findings": ("Effusion", "Hernia")}
    _, line = evaluate_prichexy_protocol(**parts, **at)
    assert line.name == "prichexy_protocol_macro_auroc.v1" and line.n_patients == 24
    assert line.value == pytest.approx(wins, abs=1e-5) and line.low < line.value < line.high
    assert list(line.extra["findings"]) == ["Effusion"], "a finding without positives is left out"
    negative = evaluate_prichexy_protocol(**_parts("negative"), **at)[1]
    assert negative.value == pytest.approx(1 - wins, abs=0.02)
    none = evaluate_prichexy_protocol(**parts, **at | {"protocol": _quick(schedule=Schedule(0), min_positives=999)})[1]
    assert none.value is None and "999" in none.extra["reason"]


def test_releases_and_cohorts_without_pairs_are_refused():
    parts = _parts("unchanged")
    real = parts["choice"].real
    few = Judged(real, Release("k", real.pixels[:2], ((0, 1), (2, 3))))
    with pytest.raises(TooLittleDataError, match="GM-U377"):
        evaluate_prichexy_protocol(**parts | {"choice": few}, context=CONTEXT, protocol=_quick())
    single = real_images("a").take(np.arange(0, 72, 3)).cohort
    with pytest.raises(TooLittleDataError, match="GM-U377"):
        balanced_pairs(single, 10, 0)
