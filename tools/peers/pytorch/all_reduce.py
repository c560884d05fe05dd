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
import time

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


def inputs(count, rank, device):
    """Small whole numbers: their sums are exact."""
    return (torch.arange(count, device=device) * 5 + rank * 3) % 7 - 2


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


class Contestant:
    """A call that is made again and again, or captured in a graph and replayed."""

    def __init__(self, name, call, graph=False):
        self.name, self.call, self.graph = name, call, graph
        self.times = []

    def queue(self, calls):
        for _ in range(calls):
            self.call()

    def prepare(self):
        """Decides how many calls a round has, and captures them if they are to be replayed."""
        self.queue(3)
        torch.cuda.synchronize()
        probe = timed(lambda: self.queue(10), 10)
        self.calls = max(1, min(200, int(ROUND_US / probe)))
        self.run = lambda: self.queue(self.calls)
        if not self.graph:
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.queue(self.calls)
        self.run = graph.replay
        self.run()
        torch.cuda.synchronize()

    def round(self, rest=0):
        """Then rests, in times of the round."""
        microseconds = timed(self.run, self.calls)
        time.sleep(rest * microseconds * self.calls / 1e6)
        self.times.append(microseconds)


class Method(Contestant):
    def __init__(self, name, call, result, refill):
        super().__init__(name, call, graph=True)
        self.result, self.refill = result, refill

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

    def refill():
        plain.copy_(inputs(count, rank, device))
        shared.copy_(plain)

    refill()

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
        method.prepare()
    for _ in range(ROUNDS):
        for method in contestants:
            method.round()
    row = {"size_bytes": size}
    want = sum(inputs(size // 2, each, device) for each in range(dist.get_world_size())).to(torch.bfloat16)
    for method in contestants:
        row[method.name + "_us"] = statistics.median(method.times)
        row[method.name + "_right"] = method.is_right(want)
    return row


def start():
    """The rank, whose device is current from now on."""
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return rank


def machine():
    return (f"# PyTorch {torch.__version__}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, "
            f"{dist.get_world_size()} x {torch.cuda.get_device_name()}, bfloat16")


def finish(rank, path, document):
    if rank == 0 and path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-b", default="1K", help="smallest size")
    parser.add_argument("-e", default="256M", help="largest size")
    parser.add_argument("-f", type=int, default=4, help="factor from one size to the next")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    rank = start()
    device = torch.device("cuda", rank)
    group = dist.group.WORLD.group_name
    if rank == 0:
        print(machine() + ", graph")
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
    finish(rank, arguments.json, {"benchmark": "pytorch all_reduce", "rows": rows})


if __name__ == "__main__":
    main()
