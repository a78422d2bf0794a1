"""verify_net_in_out and ckpt_export on network_def, as the model zoo runs them."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ckpt_export, verify_net_in_out
from monai.data import load_net_with_metadata

from gmia_monai.networks import load_anonymizer


@pytest.mark.parametrize("name", ["inference", "inference_deploy"])
def test_network_takes_and_gives_what_metadata_says(configs, name):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / f"{name}.yaml"),
        device="cpu",
    )


def test_another_number_of_channels_is_refused(configs):
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.yaml"),
            device="cpu",
            **{"_meta_#network_data_format#outputs#pred#num_channels": 2},
        )


def test_ckpt_export_gives_the_same_network(exported, models_dir, tmp_path):
    """model.pt of the export (here float16) becomes TorchScript by scripting, with its configs inside."""
    path = tmp_path / "model.ts"
    ckpt_export(
        filepath=str(path),
        ckpt_file=str(exported / "models" / "model.pt"),
        meta_file=str(exported / "configs" / "metadata.json"),
        config_file=[str(exported / "configs" / f"{n}.yaml") for n in ("inference", "inference_deploy")],
    )
    scripted, metadata, extra = load_net_with_metadata(
        str(path), more_extra_files=["inference.json", "inference_deploy.json"]
    )
    assert metadata["version"] and metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [64, 64]
    assert json.loads(extra["inference_deploy.json"])["bundle_root"] == "."

    network = load_anonymizer(models_dir)
    state = torch.load(exported / "models" / "model.pt", weights_only=True)
    halved = load_anonymizer(models_dir)
    halved.load_state_dict({k: v.to(halved.state_dict()[k].dtype) for k, v in state.items()})
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert scripted(image).dtype == torch.float32
        torch.testing.assert_close(scripted(image), halved(image))
        torch.testing.assert_close(scripted.utility.features(image), halved.utility.features(image))
        assert network(image).std() > 0.01  # nothing to compare in a constant picture
        torch.testing.assert_close(scripted(image), network(image), rtol=0, atol=0.01)
