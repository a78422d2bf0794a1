"""Perceptual losses: LPIPS (Zhang et al., CVPR 2018), and ``lpips_cxr``, the same distance on our utility network.

``lpips_cxr`` needs no download: the channel-normalised features of the first blocks of a :class:`UtilityNet` take the
place of the ImageNet trunk, with equal weights in place of the learned linear heads. Its values are on a scale of its
own and are never to be compared with those of LPIPS.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gmia_monai.errors import ResourceError, UsageError
from gmia_monai.networks.pretrained import load_network
from gmia_monai.networks.utility import UtilityNet

__all__ = ["LPIPS", "CXRPerceptualLoss", "import_torchvision", "make_perceptual_loss"]

_TRUNK_MODULES = {"alex": "alexnet", "vgg": "vgg16"}


class CXRPerceptualLoss(nn.Module):
    """``lpips_cxr``: mean squared difference of unit-length feature vectors, summed over layers.

    Args:
        utility: trained utility network; it is frozen and put in eval mode.
        layers: children of its trunk after which features are compared; those of the architecture if None.

    Raises:
        UsageError: ``GM-U021`` for a layer that the trunk does not have.
    """

    def __init__(self, utility: UtilityNet, layers: Sequence[str] | None = None) -> None:
        super().__init__()
        layers = utility.perceptual_layers if layers is None else layers
        names = [name for name, _ in utility.trunk.named_children()]
        unknown = sorted(set(layers) - set(names))
        if unknown:
            raise UsageError("GM-U021", "no such layers", got=", ".join(unknown), expected=", ".join(names))
        self.layers = tuple(layers)
        last = max(names.index(name) for name in layers)
        self.trunk = nn.ModuleDict({n: m for n, m in list(utility.trunk.named_children())[: last + 1]})
        self.mean, self.std = utility.mean, utility.std
        self.eval()
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> CXRPerceptualLoss:
        """Stays in eval mode: the statistics of the frozen trunk are part of the loss."""
        return super().train(False)

    def features(self, image: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """Unit-length features of each layer, ``[b, c, h', w']``."""
        x = (image - self.mean) / self.std
        found = []
        for name, module in self.trunk.items():
            # ReLU and pooling layers of the trunk may work in place; the features that are kept must not change.
            x = torch.relu(x) if isinstance(module, nn.ReLU) else module(x)
            if name in self.layers:
                found.append(x / (x.float().square().sum(dim=1, keepdim=True) + 1e-8).sqrt())
        return found

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of each image, ``[b]``, between two batches ``[b, 1, h, w]`` in [0, 1]."""
        with torch.no_grad():
            reference = self.features(target)
        distance = torch.zeros(prediction.shape[0], device=prediction.device)
        for a, b in zip(self.features(prediction), reference, strict=True):
            distance = distance + (a - b).float().square().sum(dim=1).mean(dim=(1, 2))
        return distance


class LPIPS(nn.Module):
    """LPIPS v0.1 on grey images.

    Args:
        net: ``alex`` (training in GMIA) or ``vgg``.
        trunk_weights: ``hub`` (torchvision's ImageNet weights, downloaded on first use), ``random`` (tests only), or
            the path of a local state dict of torchvision's ``alexnet`` / ``vgg16``.

    Raises:
        UsageError: ``GM-U022`` for an unknown network, ``GM-U023`` for a local file that is absent or does not fit.
        ResourceError: ``GM-R020`` when the download is not to be had.
    """

    def __init__(self, net: str = "alex", trunk_weights: str | Path = "hub") -> None:
        super().__init__()
        if net not in _TRUNK_MODULES:
            raise UsageError("GM-U022", "unknown LPIPS network", got=net, expected="alex or vgg")
        import_torchvision()
        import lpips

        try:
            self.metric = lpips.LPIPS(net=net, pnet_rand=trunk_weights != "hub", verbose=False)
        except OSError as error:
            raise ResourceError(
                "GM-R020",
                f"the ImageNet weights of {_TRUNK_MODULES[net]} could not be downloaded",
                next_step="give trunk_weights the path of a local copy, or use lpips_cxr, which needs no download",
            ) from error
        if trunk_weights not in ("hub", "random"):
            self._load_trunk(net, Path(trunk_weights))
        self.metric.eval().requires_grad_(False)

    def _load_trunk(self, net: str, path: Path) -> None:
        if not path.is_file():
            raise UsageError("GM-U023", "file with the LPIPS trunk not found", got=path.name)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError):
            state = None
        if not isinstance(state, dict):
            state = {}
        features = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
        # lpips cuts torchvision's feature stack into slices, whose children keep torchvision's indices as names.
        own = {name: name.split(".", 1)[1] for name, _ in self.metric.net.named_parameters()}
        shapes = {own[name]: p.shape for name, p in self.metric.net.named_parameters()}
        missing = sorted(k for k, shape in shapes.items() if k not in features or features[k].shape != shape)
        if missing:
            raise UsageError(
                "GM-U023",
                "the file is no state dict of the network",
                got=f"no features.{missing[0]} that fits",
                expected=f"a state dict of torchvision's {_TRUNK_MODULES[net]}",
            )
        self.metric.net.load_state_dict({name: features[source] for name, source in own.items()})

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of each image, ``[b]``, between two batches ``[b, 1, h, w]`` in [0, 1]."""
        a, b = (x.expand(-1, 3, -1, -1) * 2.0 - 1.0 for x in (prediction, target))
        return self.metric(a, b).flatten()


def make_perceptual_loss(
    kind: str, weights: str | Path = "hub", device: torch.device | str = "cpu"
) -> nn.Module | None:
    """The perceptual loss that a config names.

    Args:
        kind: ``none``, ``lpips_cxr``, or the LPIPS network ``alex`` or ``vgg``.
        weights: for ``lpips_cxr`` a safetensors file of a utility network, else as in :class:`LPIPS`.
        device: where the loss runs.

    Raises:
        UsageError: ``GM-U022`` for another kind, or where the weights file holds another network.
    """
    if kind == "none":
        return None
    if kind == "lpips_cxr":
        utility = load_network(weights)
        if not isinstance(utility, UtilityNet):
            raise UsageError("GM-U022", "lpips_cxr needs a utility network", got=type(utility).__name__)
        return CXRPerceptualLoss(utility).to(device)
    return LPIPS(kind, weights).to(device)


def import_torchvision() -> None:
    """Imports torchvision, also where its compiled operators were built for CUDA and torch is a CPU build.

    Such a wheel registers no ``nms``, and the import stops; declaring the operators first lets everything else work.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import sys

        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEEP_ALIVE.append(library)
        import torchvision  # noqa: F401


_KEEP_ALIVE: list[torch.library.Library] = []
