"""How much longer PyTorch's PReLU takes than ours on a processor, forward and backward.

Prints one line of JSON: milliseconds of both, and their ratio, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch
from torch import nn

from gmia_monai.networks.prelu import PReLU


def milliseconds(module: nn.Module, images: torch.Tensor, repeats: int) -> float:
    """Median time of a forward and a backward pass."""
    images = images.clone().requires_grad_()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        y = module(images)
        y.backward(torch.ones_like(y))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1e3


def main(arguments: list[str] | None = None) -> int:
    """Measures both in one run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=48)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--float32", action="store_true", help="without bfloat16 autocast")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dtype = torch.float32 if options.float32 else torch.bfloat16
    shape = (options.batch_size, options.channels, options.image_size, options.image_size)
    images = torch.randn(shape).to(dtype=dtype, memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=not options.float32):
        theirs = milliseconds(nn.PReLU(options.channels), images, options.repeats)
        ours = milliseconds(PReLU(options.channels), images, options.repeats)
    print(json.dumps(vars(options) | {"torch_ms": theirs, "ours_ms": ours, "ratio": theirs / ours}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
