#!/usr/bin/env python3
"""PyTorch's way from nothing to a first all-reduce, for comparison with `lockstep bench startup`.

    torchrun --nproc-per-node 2 tools/peers/pytorch/startup.py

Milliseconds of each step on rank 0, in the process that torchrun starts: without torchrun's own start, and Python's.
"""
import time

begun = time.perf_counter()


def lap(name):
    global begun
    now = time.perf_counter()
    steps.append((name, (now - begun) * 1e3))
    begun = now


steps = []
import os

import torch
import torch.distributed as dist

lap("import torch")
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
tensor = torch.full((256,), rank + 1.0, device="cuda")
torch.cuda.synchronize()
lap("CUDA and a tensor")
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
lap("init_process_group")
dist.all_reduce(tensor)
ranks = dist.get_world_size()
right = tensor.eq(ranks * (ranks + 1) / 2).all().item()
lap("first all_reduce")
if rank == 0:
    print(f"# PyTorch {torch.__version__}, {ranks} x {torch.cuda.get_device_name()}, {'right' if right else 'WRONG'}")
    for name, milliseconds in steps:
        print(f"{name:>28} {milliseconds:12.3f}")
dist.destroy_process_group()
