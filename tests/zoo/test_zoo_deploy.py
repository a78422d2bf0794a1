"""inference_deploy.yaml: the chain of MONAI Deploy's bundle operator, from a volume to the picture that it sends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import ensure_tuple

from gmia_monai.inferers import optimize_latents
from gmia_monai.networks import load_anonymizer
from gmia_monai.transforms import resize_image

STEPS = 3


@pytest.fixture(scope="module")
def parser(configs):
    parser = ConfigParser()
    parser.read_config(configs / "inference_deploy.yaml")
    parser["optimization#max_steps"] = STEPS
    parser["optimization#betas"] = "$(0.0, 0.99)"  # types are checked in tests, and YAML has no tuples
    parser["device"] = "cpu"
    return parser


@pytest.fixture(scope="module")
def network(models_dir):
    return load_anonymizer(models_dir)


class Wrapper(torch.nn.Module):
    """As what the SDK hands over in place of a TorchScript module: the module itself is its ``predictor``."""

    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor


def operator(parser, volume, network):
    """The steps of the operator (SDK 4.0.0) between its input and the picture that it emits."""
    compose = {name: parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing")}
    inferer = parser.get_parsed_content("inferer")
    meta = {"affine": np.eye(4), "spatial_shape": np.asarray(volume.shape), "PatientName": "Quillfeather"}
    with torch.no_grad():
        inputs = compose["preprocessing"]({"image": MetaTensor.ensure_torch_and_prune_meta(volume, meta)})
        image = inputs["image"]
        output = inferer(inputs=image[None], network=network)
        result = compose["postprocessing"]({"pred": ensure_tuple(output)[0], **inputs})["pred"]
    assert "PatientName" not in image.meta
    return image, np.squeeze(result.cpu().numpy(), 0).astype(np.uint8), inferer.last_result


def test_volume_comes_out_upright_in_eight_bits(parser, network):
    rows, cols = 100, 80
    raw = np.linspace(100, 3000, rows)[:, None] + np.linspace(0, 900, cols)[None] ** 1.1  # brighter below and right
    raw = raw.astype(np.uint16)
    volume = np.swapaxes(raw[None], 0, 2)
    assert volume.shape == (cols, rows, 1)
    scripted = torch.jit.script(network)
    image, sent, result = operator(parser, volume, Wrapper(scripted))

    unit = (raw - raw.min()) / (raw.max() - raw.min())
    square = resize_image(unit[10:90].astype(np.float32), (64, 64))
    np.testing.assert_allclose(image[0].numpy(), square, atol=1e-5)

    settings = parser.get_parsed_content("optimization")
    assert not settings.pop("bfloat16") and not settings.pop("compiled")  # the inferer's own
    parts = (network.encoder, network.synthesis, network.identity, network.utility.features)
    direct = optimize_latents(torch.from_numpy(square)[None, None], *parts, **settings)
    assert sent.shape == (64, 64) and sent.dtype == np.uint8
    assert 1 <= int(result.steps[0]) <= STEPS and int(direct.steps[0]) == int(result.steps[0])
    expected = np.rint(direct.image[0, 0].numpy() * 255)
    assert np.abs(sent - expected).max() <= 1
    assert np.abs(sent - expected.T).max() > 1


def test_signed_values_are_scaled_by_their_extremes(parser):
    volume = np.arange(-2000, -2000 + 64 * 64, dtype=np.int16).reshape(64, 64, 1)
    image = parser.get_parsed_content("preprocessing")({"image": MetaTensor(volume)})["image"]
    assert image.shape == (1, 64, 64) and image.dtype == torch.float32
    np.testing.assert_allclose(image[0].numpy().T, (volume[..., 0] + 2000) / 4095, atol=1e-6)


@pytest.mark.parametrize("section", ["network_def", "optimization", "image_size"])
def test_it_describes_the_same_anonymizer_as_inference(configs, section):
    contents = [
        ConfigParser.load_config_file(configs / f"{n}.yaml")[section] for n in ("inference", "inference_deploy")
    ]
    assert contents[0] == contents[1]
