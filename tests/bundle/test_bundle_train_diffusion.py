"""``train_diffusion.yaml``, in process, on a small drawn cohort: both stages, one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from tiny_diffusion import ARGUMENTS

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.handlers.checkpoint import find_last_checkpoint
from gmia_monai.networks import UtilityNet, load_network, save_network
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import NETWORKS

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
SETTINGS = {f"diffusion#{k}": v for k, v in ARGUMENTS.items() if k not in ("image_size", "findings")}
COMMON: dict[str, Any] = SETTINGS | {
    "image_size": 32,
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "device": "cpu",
    "diffusion#val_steps": 2,
    "diffusion#ema_kimg": 0.05,
    "diffusion#adversarial_start": 1,
    "diffusion#val_images": 4,
    "diffusion#half": False,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two iterations of the first stage, then of the second."""
    root = tmp_path_factory.mktemp("runs")
    manifest = generate_cohort(root / "phantom", 12, 2, size=32, formats=("png",))
    (root / "metadata.json").write_text(json.dumps(META))
    utility = root / "utility" / "utility.safetensors"
    utility.parent.mkdir()
    save_network(utility, UtilityNet(3, "small"), {"n_findings": 3, "architecture": "small"})
    found = SimpleNamespace(root=root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "LatentDiffusionNet", LatentDiffusionNet)
        for stage in ("autoencoder", "diffusion"):
            first = root / "autoencoder" / "models" / "latent_diffusion.safetensors"
            more = {
                "stage": stage,
                "manifest": str(manifest),
                "output_dir": str(root / stage),
                "diffusion#init_from": str(first) if stage == "diffusion" else "",
                "diffusion#features": str(utility),
                "diffusion#perceptual_weights": str(utility),
            }
            w = ConfigWorkflow(
                str(CONFIGS / "train_diffusion.yaml"),
                str(root / "metadata.json"),
                False,
                run_id="training",
                workflow_type="train",
                **(COMMON | more),
            )
            w.initialize()
            w.run()
            evaluator = w.parser.get_parsed_content("validate#evaluator")
            setattr(found, f"{stage}_metrics", dict(evaluator.state.metrics))
            setattr(found, f"{stage}_output", dict(w.parser.get_parsed_content("train#trainer").state.output))
            w.finalize()
            setattr(found, stage, load_network(root / stage / "models" / "latent_diffusion.safetensors"))
    return found


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_two_iterations_leave_a_checkpoint_weights_and_a_picture(runs, stage):
    state = torch.load(find_last_checkpoint(runs.root / stage / "checkpoints"), weights_only=True)
    assert state["engine"] == {"epoch": 1, "iteration": 2}
    saved = getattr(runs, stage).state_dict()
    assert all(torch.equal(v, state["network"][k]) for k, v in saved.items())
    (picture,) = (runs.root / stage / "pictures").glob("*.png")
    assert np.asarray(Image.open(picture)).std() > 0


def test_each_stage_is_validated_by_its_own_figure(runs):
    assert {"psnr", "ssim", "perceptual"} <= runs.autoencoder_metrics.keys()
    assert np.isfinite(runs.diffusion_metrics["negative_kid"])
    assert {"kl_loss", "perceptual_loss", "discriminator_loss"} <= runs.autoencoder_output.keys()


def test_the_second_stage_keeps_the_first_and_standardises_its_latents(runs):
    first, second = runs.autoencoder.state_dict(), runs.diffusion.state_dict()
    for name, tensor in first.items():
        if name.startswith("autoencoder."):
            assert torch.allclose(tensor, second[name], rtol=1e-4, atol=1e-6), name  # an average of equal numbers
    assert any(not torch.equal(first[n], second[n]) for n in first if n.startswith("unet."))
    assert not torch.equal(first["latent_std"], second["latent_std"])


def test_the_weights_sample(runs):
    labels = torch.zeros(2, len(runs.diffusion.findings))
    images = runs.diffusion.sample(labels, [0, 1], guidance=1.5, n_steps=2)
    assert images.shape == (2, 1, 32, 32) and torch.isfinite(images).all()
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("profile", ["cxr64_diffusion_autoencoder.yaml", "cxr64_diffusion.yaml"])
def test_profiles_of_both_stages_make_the_same_network(profile):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train_diffusion.yaml"), str(CONFIGS / "profiles" / profile)])
    parser.update({"findings": ["Effusion"] * 14})
    network = parser.get_parsed_content("network_def")
    assert network.latent_shape == (4, 16, 16)
    n = sum(p.numel() for p in network.parameters())
    assert 5_000_000 < n and 2 * n < 25 * 2**20
