"""Generator, E-training and prior, each trained by its config for two iterations on the drawn cohort."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_bundle import save_tiny

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.engines import with_frozen_synthesis
from gmia_monai.errors import UsageError
from gmia_monai.networks import AEGAN, load_network

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
SIZES = {"latent_dim": 16, "channel_base": 256, "channel_max": 16}
COMMON: dict[str, Any] = {
    "image_size": 32, "max_epochs": 1, "epoch_length": 2, "batch_size": 4, "val_interval": 1, "device": "cpu",
}  # fmt: skip


def _train(meta: Path, files: list[str], **values: Any) -> None:
    workflow = ConfigWorkflow(
        [str(CONFIGS / file) for file in files], str(meta), False, run_id="training", workflow_type="train", **values
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("runs")
    meta = root / "metadata.json"
    meta.write_text(json.dumps({"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}))
    manifest = str(generate_cohort(tmp_path_factory.mktemp("phantom"), 12, 2, size=32, formats=("png",)))
    models = save_tiny(root / "models")
    shared = COMMON | {"manifest": manifest}
    _train(
        meta,
        ["train_generator.yaml"],
        **shared,
        output_dir=str(root / "generator"),
        **{f"generator#{key}": value for key, value in SIZES.items()},
        **{"generator#features": str(models / "utility.safetensors"), "generator#mapping_layers": 2},
    )
    _train(
        meta,
        ["train.yaml", "systems/e_training.yaml"],
        **shared,
        output_dir=str(root / "e_training"),
        **{f"aegan#{key}": value for key, value in SIZES.items()},
        **{"aegan#perceptual": "none", "aegan#adversarial_weight": 0.0, "aegan#path_length_interval": 0},
        **{"e_training#generator": str(root / "generator" / "models" / "generator.safetensors")},
    )
    prior = {k: shared[k] for k in ("image_size", "device", "manifest")}
    _train(
        meta,
        ["train_prior.yaml"],
        **prior,
        output_dir=str(root / "prior"),
        models_dir=str(models),
        **{"prior#rank": 4},
    )
    return SimpleNamespace(root=root)


def test_the_generator_leaves_weights_that_draw(runs):
    net = load_network(runs.root / "generator" / "models" / "generator.safetensors")
    images = net.synthesis(net.sample_codes(3, 0))
    assert images.shape == (3, 1, 32, 32) and torch.isfinite(images).all()
    assert net.mapping.w_avg.abs().sum() > 0
    load_network(runs.root / "generator" / "models" / "generator_discriminator.safetensors")
    assert list((runs.root / "generator" / "pictures").glob("*.png"))


def test_e_training_moves_the_encoder_alone(runs):
    generator = load_network(runs.root / "generator" / "models" / "generator.safetensors")
    trained = load_network(runs.root / "e_training" / "models" / "aegan_e.safetensors")
    for name, value in generator.synthesis.state_dict().items():
        # the moving average of a value that stays is that value, but for rounding
        assert torch.allclose(trained.synthesis.state_dict()[name], value, atol=1e-6), name
    state = torch.load(max((runs.root / "e_training" / "checkpoints").glob("*.pt")), weights_only=True)
    assert state["g_optimizer"]["state"], "the encoder was updated"


def test_a_generator_of_other_sizes_is_refused(runs):
    with pytest.raises(UsageError, match="GM-U048"):
        with_frozen_synthesis(AEGAN(32, 16, 128, 8), runs.root / "generator" / "models" / "generator.safetensors")


def test_the_prior_leaves_weights_that_draw(runs):
    prior = load_network(runs.root / "prior" / "models" / "prior.safetensors")
    assert prior.known[-4:] == ("view_AP", "sex_M", "age_decades", "age_decades_squared")
    w, logits = prior.draw(torch.zeros(2, len(prior.known)), [0, 1])
    assert w.shape == (2, 512) and logits.shape == (2, 3) and torch.isfinite(w).all()
