#!/usr/bin/env python3
"""PyTorch's tensor-parallel MLP, for comparison with `lockstep bench mlp`: by hand with NCCL, and by DTensor.

    torchrun --nproc-per-node 2 tools/peers/pytorch/mlp.py [--rows 8,512,4096] [--json FILE]

hidden -> inner -> GELU -> hidden in bfloat16, `inner` split over the ranks: matmul, gelu, matmul and an NCCL
all-reduce in a CUDA graph and eager; the two matmuls alone in a graph; and DTensor eager, forward, and forward with
backward. All take turns; the median of seven rounds, the slower rank counted, in microseconds. Without biases, and with
gradients written anew, as lockstep's; PyTorch's are bfloat16, half the bytes. NVLink multicast is not used.
"""
import argparse
import statistics

# First of all: it sets what torch reads when it is loaded.
from all_reduce import ROUNDS, Contestant, finish, machine, start

import torch
import torch.distributed as dist
import torch.nn.functional as F

# As `lockstep bench mlp` has it: parts of a sum are rounded before they are added up.
TOLERANCE = 1 / 32
# After a round, in times of the round, as `lockstep bench mlp` does: below the GPU's power limit.
REST = 3
PLAIN = ["graph", "eager", "products"]
DTENSOR = ["dtensor_forward", "dtensor_forward_backward"]


def uniform(shape, bound, seed):
    """The same numbers on every rank."""
    device = torch.device("cuda", torch.cuda.current_device())
    generator = torch.Generator(device).manual_seed(seed)
    tensor = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return tensor.uniform_(-bound, bound, generator=generator)


class Weights:
    """Whole, as nn.Linear keeps them, and this rank's shards."""

    def __init__(self, hidden, inner):
        self.hidden, self.inner = hidden, inner
        self.up = uniform((inner, hidden), hidden**-0.5, seed=1)
        self.down = uniform((hidden, inner), inner**-0.5, seed=2)
        rank, ranks = dist.get_rank(), dist.get_world_size()
        self.up_part = self.up.tensor_split(ranks, dim=0)[rank].contiguous()
        self.down_part = self.down.tensor_split(ranks, dim=1)[rank].contiguous()


class Mlp(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        made = {"bias": False, "device": "cuda", "dtype": torch.bfloat16}
        self.up = torch.nn.Linear(weights.hidden, weights.inner, **made)
        self.down = torch.nn.Linear(weights.inner, weights.hidden, **made)
        with torch.no_grad():
            self.up.weight.copy_(weights.up)
            self.down.weight.copy_(weights.down)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


def parallel_mlp(weights):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cuda", (dist.get_world_size(),))
    return parallelize_module(Mlp(weights), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def waited(result):
    """A result of DTensor may be one that still is under way, on another stream."""
    from torch.distributed._functional_collectives import AsyncCollectiveTensor

    return result.wait() if isinstance(result, AsyncCollectiveTensor) else result


def plain_contestants(weights, x):
    @torch.no_grad()
    def products():
        return F.linear(F.linear(x, weights.up_part), weights.down_part)

    @torch.no_grad()
    def forward():
        y = F.linear(F.gelu(F.linear(x, weights.up_part)), weights.down_part)
        dist.all_reduce(y)
        return y

    return [Contestant("graph", forward, graph=True), Contestant("eager", forward),
            Contestant("products", products, graph=True)]


def dtensor_contestants(mlp, x, grad_y):
    @torch.no_grad()
    def forward():
        return waited(mlp(x))

    leaf = x.detach().clone().requires_grad_(True)

    def forward_backward():
        mlp.zero_grad(set_to_none=True)
        leaf.grad = None
        mlp(leaf).backward(grad_y)
        return waited(leaf.grad)

    return [Contestant("dtensor_forward", forward), Contestant("dtensor_forward_backward", forward_backward)]


def is_right(found, want):
    far = (found.float() - want.float()).abs().max() / want.float().abs().max()
    return bool(far <= TOLERANCE)  # a NaN is not


def measure(rows, weights, mlp):
    """One row of figures. `mlp` is DTensor's, or None."""
    x = uniform((rows, weights.hidden), 1, seed=3)
    contestants = plain_contestants(weights, x)
    if mlp is not None:
        contestants += dtensor_contestants(mlp, x, uniform((rows, weights.hidden), 1, seed=4))
    for contestant in contestants:
        contestant.prepare()
    for _ in range(ROUNDS + 1):
        for contestant in contestants:
            contestant.round(REST)
    row = {"rows": rows}
    for contestant in contestants:
        row[contestant.name + "_us"] = statistics.median(contestant.times[1:])  # the first round does not count
    with torch.no_grad():
        want = F.linear(F.gelu(F.linear(x, weights.up)), weights.down)
    # A list, because all ranks must make all of the calls.
    row["right"] = all([is_right(contestant.call(), want) for contestant in contestants
                        if contestant.name in ("graph", "eager", "dtensor_forward")])
    return row


def try_dtensor(weights):
    """(The module, None), or (None, why not); the same of the two on every rank."""
    mlp, reason = None, None
    try:
        mlp = parallel_mlp(weights)
        x = uniform((8, weights.hidden), 1, seed=3)
        for contestant in dtensor_contestants(mlp, x, x):
            contestant.call()
        torch.cuda.synchronize()
    except Exception as error:  # whatever this version of PyTorch finds wrong
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    failed = torch.tensor([reason is not None], device="cuda", dtype=torch.int32)
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if failed.item():
        return None, reason or "it failed on another rank"
    return mlp, None


def cell(row, name):
    value = row.get(name + "_us")
    return f"{'N/A' if value is None else f'{value:.2f}':>26}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=8192, help="features in and out")
    parser.add_argument("--inner", type=int, default=32768, help="features between, split over the ranks")
    parser.add_argument("--rows", default="8,512,4096", help="rows of the input, one measurement each")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    rank = start()
    weights = Weights(arguments.hidden, arguments.inner)
    mlp, reason = try_dtensor(weights)
    if rank == 0:
        print(f"{machine()}, {arguments.hidden} -> {arguments.inner} -> GELU -> {arguments.hidden}")
        print(f"# microseconds, median of {ROUNDS} alternating rounds, slowest rank")
        if reason is not None:
            print(f"# no DTensor: {reason}")
        print(f"#{'rows':>7}" + "".join(f"{name:>26}" for name in PLAIN + DTENSOR) + "  right")
    rows = []
    for count in map(int, arguments.rows.split(",")):
        row = measure(count, weights, mlp)
        rows.append(row)
        if rank == 0:
            print(f"{count:>8}" + "".join(cell(row, name) for name in PLAIN + DTENSOR) +
                  f"  {'yes' if row['right'] else 'NO'}", flush=True)
    finish(rank, arguments.json,
           {"benchmark": "pytorch mlp", "ranks": dist.get_world_size(), "type": "bfloat16",
            "hidden": arguments.hidden, "inner": arguments.inner, "no_dtensor": reason, "rows": rows})


if __name__ == "__main__":
    main()
