"""Joining the processes of a torchrun: the group, the GPU of each, and which of them writes."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

__all__ = ["is_writing_process", "start_processes", "stop_processes"]


def start_processes(device: torch.device | str) -> None:
    """Joins the default group; NCCL for CUDA devices, else Gloo.

    Plain ``cuda`` then means the GPU of this process, by ``LOCAL_RANK``. A group that runs already is left as it is.

    Args:
        device: device of the run, e.g. ``cuda:1`` or ``cpu``.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")


def stop_processes() -> None:
    """Waits for all processes, then leaves the group; does nothing where there is none."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def is_writing_process() -> bool:
    """Whether this is process 0, the only one that writes files; also true for a process of its own."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
