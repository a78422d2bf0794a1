"""Optimizers against their formulas, gradients against their mean over processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from gmia_monai.engines import lazy_adam, make_optimizer, warm_up_decay
from gmia_monai.engines.optimizers import average_gradients, broadcast_parameters
from gmia_monai.errors import UsageError


def test_lazy_adam_corrects_rate_and_betas_and_steps_as_adam_is_written():
    lr, betas, k, eps = 0.01, (0.5, 0.99), 4, 1e-8
    c = k / (k + 1)
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = lazy_adam([p], lr, betas, eps, k)
    x, m, v = p.detach().clone(), torch.zeros(3).double(), torch.zeros(3).double()
    b1, b2 = betas[0] ** c, betas[1] ** c
    for t in range(1, 6):
        optimizer.zero_grad()
        (p**4).sum().backward()
        optimizer.step()
        g = 4 * x**3
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * c * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        torch.testing.assert_close(p.detach(), x, rtol=1e-10, atol=0)


@pytest.mark.parametrize("interval", [0, 1])
def test_lazy_adam_without_a_regulariser_is_plain_adam(interval):
    (group,) = lazy_adam([nn.Parameter(torch.zeros(1))], 0.0025, (0.0, 0.99), interval=interval).param_groups
    assert group["lr"] == 0.0025 and group["betas"] == (0.0, 0.99)


def test_biases_and_norm_layers_do_not_decay():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decaying, free = make_optimizer([net], "AdamW", 0.1, 0.3).param_groups
    assert [p.ndim for p in decaying["params"]] == [4] and decaying["weight_decay"] == 0.3
    assert len(free["params"]) == 3 and free["weight_decay"] == 0.0
    assert make_optimizer([net], "SGD", 0.1).param_groups[0]["momentum"] == 0.9
    with pytest.raises(UsageError, match="GM-U043"):
        make_optimizer([net], "LBFGS")


def test_warm_up_decay_rises_stays_and_falls_as_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warm_up_decay(optimizer, 100, warm_up=0.1, flat=0.3, floor=0.1)
    rates = []
    for _ in range(110):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:41] == pytest.approx([2.0] * 31)
    assert rates[70] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5))))
    assert rates[100:] == pytest.approx([0.2] * 10)


def test_a_single_process_keeps_its_gradients():
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([1.0, 2.0])
    average_gradients([p])
    assert p.grad.tolist() == [1.0, 2.0]
    broadcast_parameters([nn.Linear(1, 1)])


WORKER = """
import torch
from torch import nn
from gmia_monai.engines.distributed import is_writing_process, start_processes, stop_processes
from gmia_monai.engines.optimizers import average_gradients, broadcast_parameters

start_processes("cpu")
start_processes("cpu")
rank = torch.distributed.get_rank()
assert is_writing_process() == (rank == 0)
torch.manual_seed(rank)
net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
net[1].running_mean += rank
broadcast_parameters([net])
torch.manual_seed(0)
first = nn.Linear(3, 2)
assert torch.equal(net[0].weight, first.weight) and net[1].running_mean.eq(0).all()
params = list(net.parameters())
for i, p in enumerate(params[:3]):
    p.grad = torch.full_like(p, float(i + rank))
params[0].grad = params[0].grad.t().contiguous().t()  # not contiguous
average_gradients(params)
assert params[3].grad is None
for i, p in enumerate(params[:3]):
    assert torch.allclose(p.grad, torch.full_like(p, i + 0.5)), (rank, i)
stop_processes()
stop_processes()
assert is_writing_process()
"""


def test_two_processes_average_gradients_and_share_parameters(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", tmp_path / "worker.py"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
