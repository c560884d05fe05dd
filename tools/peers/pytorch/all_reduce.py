#!/usr/bin/env python3
"""PyTorch's all-reduce, for comparison only: NCCL, and the one- and two-shot sums of symmetric memory.

    torchrun --nproc-per-node 2 tools/peers/pytorch/all_reduce.py [--json FILE]

bfloat16, in a CUDA graph, the methods taking turns; the median of seven rounds, the slower rank counted, in
microseconds. NVLink multicast is not used: the multimem operators are never called, and NCCL and PyTorch are told to
leave it.
"""
import argparse
import json
import os
import statistics

# Before torch is loaded, which reads them; set whatever the environment says.
os.environ["NCCL_NVLS_ENABLE"] = "0"
os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symm_mem

ROUNDS = 7
ROUND_US = 8000


def parse_bytes(text):
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1].upper(), 0)
    return int(text[:-1] if shift else text) << shift


def fill(tensor, rank):
    """Small whole numbers: their sums are exact."""
    index = torch.arange(tensor.numel(), device=tensor.device)
    tensor.copy_((index * 5 + rank * 3) % 7 - 2)


def expected(tensor, ranks):
    index = torch.arange(tensor.numel(), device=tensor.device)
    return sum((index * 5 + rank * 3) % 7 - 2 for rank in range(ranks)).to(tensor.dtype)


def slowest(microseconds):
    """The largest of all ranks' values, on every rank."""
    value = torch.tensor([microseconds], device="cuda", dtype=torch.float64)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value.item()


def timed(run, calls):
    """Microseconds of one of the calls that run() makes."""
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    dist.barrier()
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    last.synchronize()
    return slowest(first.elapsed_time(last) * 1e3 / calls)


class Method:
    def __init__(self, name, call, result, refill):
        self.name, self.call, self.result, self.refill = name, call, result, refill
        self.times = []

    def record(self):
        """Captures as many calls as a round takes."""
        for _ in range(3):
            self.call()
        torch.cuda.synchronize()
        probe = timed(lambda: [self.call() for _ in range(10)], 10)
        self.calls = max(1, min(200, int(ROUND_US / probe)))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            for _ in range(self.calls):
                self.call()
        self.graph.replay()
        torch.cuda.synchronize()

    def is_right(self, want):
        self.refill()
        torch.cuda.synchronize()
        dist.barrier()
        found = self.call()
        torch.cuda.synchronize()
        return torch.equal(self.result() if found is None else found, want)


def methods(count, rank, device, group):
    """NCCL works in place: PyTorch has no other all_reduce."""
    plain = torch.empty(count, dtype=torch.bfloat16, device=device)
    shared = symm_mem.empty(count, dtype=torch.bfloat16, device=device)
    symm_mem.rendezvous(shared, group)
    fill(plain, rank)
    fill(shared, rank)

    def refill():
        fill(plain, rank)
        fill(shared, rank)

    def nccl():
        dist.all_reduce(plain)

    def one_shot():
        return torch.ops.symm_mem.one_shot_all_reduce(shared, "sum", group)

    def two_shot():
        torch.ops.symm_mem.two_shot_all_reduce_(shared, "sum", group)

    return [Method("nccl", nccl, lambda: plain, refill),
            Method("one_shot", one_shot, lambda: None, refill),
            Method("two_shot", two_shot, lambda: shared, refill)]


def measure(size, rank, device, group):
    contestants = methods(size // 2, rank, device, group)
    for method in contestants:
        method.record()
    for _ in range(ROUNDS):
        for method in contestants:
            method.times.append(timed(method.graph.replay, method.calls))
    row = {"size_bytes": size}
    for method in contestants:
        want = expected(torch.empty(size // 2, dtype=torch.bfloat16, device=device),
                        dist.get_world_size())
        row[method.name + "_us"] = statistics.median(method.times)
        row[method.name + "_right"] = method.is_right(want)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-b", default="1K", help="smallest size")
    parser.add_argument("-e", default="256M", help="largest size")
    parser.add_argument("-f", type=int, default=4, help="factor from one size to the next")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    group = dist.group.WORLD.group_name
    if rank == 0:
        print(f"# PyTorch {torch.__version__}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, "
              f"{dist.get_world_size()} x {torch.cuda.get_device_name()}, bfloat16, graph")
        print(f"#{'size (B)':>11} {'NCCL (us)':>11} {'one-shot':>11} {'two-shot':>11}  right")
    rows = []
    size = parse_bytes(arguments.b)
    while size <= parse_bytes(arguments.e):
        row = measure(size, rank, device, group)
        rows.append(row)
        if rank == 0:
            right = all(row[name + "_right"] for name in ("nccl", "one_shot", "two_shot"))
            print(f"{size:>12} {row['nccl_us']:>11.2f} {row['one_shot_us']:>11.2f} "
                  f"{row['two_shot_us']:>11.2f}  {'yes' if right else 'NO'}", flush=True)
        size *= arguments.f
    if rank == 0 and arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"benchmark": "pytorch all_reduce", "rows": rows}, file, indent=2)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
