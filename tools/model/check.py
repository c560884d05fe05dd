#!/usr/bin/env python3
"""Checks the models in this folder with spin, sound ones and broken ones, and prints what came out. README.md explains.

  tools/model/check.py                 all of them, at 2 to 4 ranks
  tools/model/check.py --ranks=5       the sound ones that fit, at so many ranks (2 to 5)
  tools/model/check.py --trail=NAME    the shortest way to the failure of a broken variant, step by step

Passes when every sound model holds in all its states, and every broken one is found out by the property named for it.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent
MEMORY = 2 << 30  # bytes of address space for one search
JOBS = 2
MAX_DEPTH = 200_000
TIME_LIMIT = 900  # seconds


@dataclasses.dataclass
class Case:
    model: str
    name: str
    ranks: int
    options: str
    expected: str  # "holds", or what must be found
    sound: bool

    @property
    def defines(self):
        return [f"-D{option}" for option in f"RANKS={self.ranks} {self.options}".split()]


# Per model: what may happen, and the options by the number of ranks.
SOUND = [
    ("handover", "no naps", {2: "PIECES=4", 3: "PIECES=3", 4: "PIECES=2"}),
    ("handover", "naps and threads that end", {2: "NAP=1 ENDS=2 PIECES=3", 3: "NAP=1 ENDS=1"}),
    ("handover", "freed after AwaitDone", {2: "JOIN=0 PIECES=3", 3: "JOIN=0", 4: "JOIN=0 PIECES=1", 5: "JOIN=0 PIECES=1"}),
    ("handover", "every process ends, with naps", {2: "NAP=1 LIVENESS", 3: "NAP=1 LIVENESS PIECES=1"}),
    ("barrier", "waits run out", {2: "ROUNDS=4 SPURIOUS=1", 3: "ROUNDS=1", 4: "ROUNDS=1 DIAGNOSIS=0",
                                  5: "ROUNDS=1 DIAGNOSIS=0 PARKS=0 MEETINGS=1"}),
    ("barrier", "waits run out, more rounds", {3: "ROUNDS=3 DIAGNOSIS=0 SPURIOUS=1", 4: "ROUNDS=2 DIAGNOSIS=0 PARKS=0"}),
    ("barrier", "no wait runs out", {2: "DEADLINE=0 ROUNDS=4", 3: "DEADLINE=0 ROUNDS=3", 4: "DEADLINE=0",
                                     5: "DEADLINE=0 MEETINGS=1 ROUNDS=1"}),
    ("barrier", "one meeting a round", {2: "MEETINGS=1 ROUNDS=6", 3: "MEETINGS=1 DIAGNOSIS=0 ROUNDS=6"}),
    ("barrier", "a rank stops", {2: "STOPS=1 SPURIOUS=1", 3: "STOPS=1 DIAGNOSIS=0 ROUNDS=1"}),
    ("barrier", "outsiders abort", {2: "DEADLINE=0 ABORTS=2", 3: "DEADLINE=0 ABORTS=1"}),
    ("barrier", "outsiders abort, waits run out", {2: "ABORTS=1 SPURIOUS=1"}),
    ("barrier", "ranks disagree", {2: "MISMATCHES=1 SPURIOUS=1", 3: "DEADLINE=0 MISMATCHES=2"}),
    ("barrier", "ranks refuse and fail", {2: "FAILURES=2 SPURIOUS=1", 3: "DEADLINE=0 FAILURES=1"}),
    ("barrier", "resets after time-outs", {2: "RESETS=2", 3: "RESETS=1 ROUNDS=1 DIAGNOSIS=0"}),
    ("barrier", "resets after aborts", {2: "DEADLINE=0 ABORTS=2 RESETS=1 ROUNDS=1", 3: "DEADLINE=0 ABORTS=1 RESETS=1 ROUNDS=1"}),
    ("barrier", "resets after a stop", {2: "STOPS=1 RESETS=1"}),
    ("barrier", "tasks end", {2: "DEADLINE=0 RUNS=3", 3: "DEADLINE=0 RUNS=2 ROUNDS=1"}),
    ("barrier", "tasks end, and resets", {2: "DEADLINE=0 RUNS=2 ROUNDS=1 RESETS=1"}),
    ("barrier", "destroyed", {2: "DESTROY=1 SPURIOUS=1", 3: "DEADLINE=0 DESTROY=1"}),
    ("barrier", "every process ends", {2: "LIVENESS STOPS=1 SPURIOUS=1", 3: "LIVENESS MEETINGS=1 ROUNDS=1 DIAGNOSIS=0"}),
    ("barrier", "every process ends, with tasks", {2: "LIVENESS RUNS=2 ROUNDS=1"}),
]

DEADLOCK = "invalid end state"
NEVER_ENDS = "acceptance cycle"

# Per model: the BREAK_ macro, the options under which it matters, and what must be found.
BROKEN = [
    ("handover", "NO_WAKE_IN_START", "", DEADLOCK),
    ("handover", "NO_WAKE_IN_START", "LIVENESS", NEVER_ENDS),
    ("handover", "NO_WAKE_IN_START", "NAP=1 LIVENESS", "holds"),
    ("handover", "NO_WAKE_IN_FINISH", "", DEADLOCK),
    ("handover", "NO_PARKED_BIT", "", DEADLOCK),
    ("handover", "PENDING_AFTER_WORK", "", DEADLOCK),
    ("handover", "STORE_FOR_EXCHANGE", "", DEADLOCK),
    ("handover", "LOAD_AND_STORE", "", DEADLOCK),
    ("handover", "RETURN_BEFORE_DONE", "", "all_done"),
    ("handover", "REPLACED_THREAD_FORGETS", "ENDS=1", "task_is_there"),
    ("handover", "FINISH_LOOKS_AGAIN", "JOIN=0", "nothing_touched_after_free"),
    ("handover", "NO_JOIN", "", "nothing_touched_after_free"),
    ("barrier", "SEPARATE_WORDS", "", "one_verdict_per_round"),
    ("barrier", "POISON_BEFORE_GENERATION", "", "one_verdict_per_round"),
    ("barrier", "STORE_FOR_EXCHANGE", "", "inputs_hold"),
    ("barrier", "LAST_COMES_EARLY", "", "records_hold"),
    ("barrier", "ARRIVE_BY_STORE", "DEADLINE=0", DEADLOCK),
    ("barrier", "COUNT_AFTER_RELEASE", "DEADLINE=0", DEADLOCK),
    ("barrier", "NO_WAKE_ON_RELEASE", "DEADLINE=0", DEADLOCK),
    ("barrier", "NO_WAKE_ON_RELEASE", "", "holds"),
    ("barrier", "NO_WAKE_ON_POISON", "DEADLINE=0 ABORTS=1", DEADLOCK),
    ("barrier", "NO_WAKE_ON_DEPART", "DEADLINE=0 RUNS=1", DEADLOCK),
    ("barrier", "WAKE_BEFORE_RELEASE", "DEADLINE=0", DEADLOCK),
    ("barrier", "WAKE_ONE", "DEADLINE=0", DEADLOCK),
    ("barrier", "NO_PARKED_BIT", "DEADLINE=0", DEADLOCK),
    ("barrier", "PARK_WITHOUT_COMPARING", "DEADLINE=0", DEADLOCK),
    ("barrier", "LOW_HALF_WITHOUT_GENERATION", "DEADLINE=0", DEADLOCK),
    ("barrier", "UNTIMED_PARK", "STOPS=1", DEADLOCK),
    ("barrier", "UNTIMED_PARK", "STOPS=1 LIVENESS", NEVER_ENDS),
    ("barrier", "DEPARTED_UNSEEN", "DEADLINE=0 RUNS=1", DEADLOCK),
    ("barrier", "NO_RETURN", "DEADLINE=0 RUNS=2", "no_failure_without_cause"),
    ("barrier", "ONE_RECORD", "MEETINGS=1", "records_hold"),
    ("barrier", "NO_END_MEETING", "MEETINGS=1", "inputs_hold"),
    ("barrier", "LEAVE_WITHOUT_AWAITING", "DEADLINE=0 ABORTS=1", "inputs_hold"),
    ("barrier", "FAILED_MOVE_LEAVES_AT_ONCE", "DEADLINE=0 FAILURES=1", "inputs_hold"),
    ("barrier", "NO_AGREEMENT", "DEADLINE=0 MISMATCHES=1", "nothing_moves_on_mismatch"),
    ("barrier", "EXPLAIN_AFTER_POISON", "", "diagnosis_stands"),
    ("barrier", "ABORT_WITHOUT_MUTEX", "DEADLINE=0 ABORTS=2", "diagnosis_stands"),
    ("barrier", "RESET_KEEPS_EPOCH", "RESETS=1", "nobody_leaves_early"),
    ("barrier", "RESET_KEEPS_COUNT", "RESETS=1", "records_hold"),
    ("barrier", "RESET_WITHOUT_AWAITING", "RESETS=1 DIAGNOSIS=0", "records_hold"),
    ("barrier", "DESTROY_WITHOUT_AWAITING", "DEADLINE=0 DESTROY=1", "nothing_touched_after_free"),
    ("barrier", "DESTROY_BEFORE_PUBLISHED", "DEADLINE=0 DESTROY=1", "nothing_touched_after_free"),
]

WAKE_ONE_RANKS = 3  # with two there is one sleeper


def cases(ranks):
    """All, or the sound ones at `ranks`."""
    found = []
    for model, name, by_ranks in SOUND:
        for count, options in by_ranks.items():
            if count == ranks or (ranks is None and count <= 4):
                found.append(Case(model, name, count, options, "holds", True))
    for model, name, options, expected in BROKEN if ranks is None else []:
        count = WAKE_ONE_RANKS if name == "WAKE_ONE" else 2
        found.append(Case(model, name, count, f"BREAK_{name} {options}", expected, False))
    return found


def run(command, folder, limit_memory=False):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    return subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=TIME_LIMIT, preexec_fn=limit if limit_memory else None)


def build(case, folder, flags=()):
    """Makes the program `pan` that searches the states of `case`."""
    for part in FOLDER.glob(f"{case.model}*.pml"):
        shutil.copy(part, folder)
    generated = run(["spin", "-a", *case.defines, f"{case.model}.pml"], folder)
    if generated.returncode != 0 or "Error" in generated.stdout:
        raise RuntimeError(generated.stdout)
    kind = ["-DNFAIR=3"] if "LIVENESS" in case.options else ["-DSAFETY"]
    # What is broken is found before an optimised program would be built.
    speed = "-O2" if case.sound and case.ranks > 2 else "-O0"
    compiled = run(["gcc", speed, "-w", "-DCOLLAPSE", *kind, *flags, "-o", "pan", "pan.c"], folder)
    if compiled.returncode != 0:
        raise RuntimeError(compiled.stdout)


def search(folder, *flags):
    return run(["./pan", f"-m{MAX_DEPTH}", "-w22", *flags], folder, limit_memory=True).stdout


def verdict_of(output):
    """`holds` only if no state was left out."""
    error = re.search(r"^pan:\d+: (.*?)(?: \(at depth|$)", output, re.MULTILINE)
    if error:
        names = re.findall(r"\|\|\s*(\w+)\)", error[1])
        return names[-1] if names else error[1]
    complete = re.search(r"errors: 0$", output, re.MULTILINE) and "hash-compact" not in output
    for cut in ("max search depth too small", "out of memory", "Search not completed"):
        if cut in output:
            return cut
    return "holds" if complete else "no result: " + output.strip()[-200:]


def check(case):
    """(Number of states, seconds as text, verdict)."""
    with tempfile.TemporaryDirectory(prefix="lockstep_model_") as folder:
        try:
            build(case, folder)
            output = search(folder, *(["-a", "-f"] if "LIVENESS" in case.options else []))
        except subprocess.TimeoutExpired:
            return 0, "-", f"not done in {TIME_LIMIT} s"
        except RuntimeError as error:
            return 0, "-", str(error).strip()
        states = re.search(r"([\d.e+]+) states, stored", output)
        seconds = re.search(r"elapsed time ([\d.e+-]+)", output)
        return int(float(states[1])) if states else 0, f"{float(seconds[1]):.1f}" if seconds else "-", verdict_of(output)


def print_trail(name):
    case = next((c for c in cases(None) if c.name == name and c.expected != "holds"), None)
    if case is None or "LIVENESS" in case.options:
        sys.exit(f"--trail={name}: no such broken variant; the table has their names")
    with tempfile.TemporaryDirectory(prefix="lockstep_model_") as folder:
        build(case, folder, ["-DREACH"])
        print(verdict_of(search(folder, "-i")), flush=True)
        run_trail = ["spin", "-t", "-p", "-g", "-l", *case.defines, f"{case.model}.pml"]
        print(run(run_trail, folder).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, choices=range(2, 6))
    parser.add_argument("--trail", metavar="NAME")
    arguments = parser.parse_args()
    if shutil.which("spin") is None:
        sys.exit("spin is missing: `tools/install_dependencies spin` installs it")
    if arguments.trail:
        print_trail(arguments.trail)
        return
    chosen = cases(arguments.ranks)
    failed = total = 0
    row = "{:<9} {:>5}  {:<31} {:>11} {:>6}  {:<27} {}"
    print(row.format("model", "ranks", "what happens, or is BROKEN", "states", "s", "verdict", "expected"))
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for case, (states, seconds, verdict) in zip(chosen, pool.map(check, chosen)):
            right = verdict == case.expected
            failed += not right
            total += states
            print(row.format(case.model, case.ranks, case.name, f"{states:,}" if states else "-", seconds, verdict,
                             case.expected + ("" if right else "   FAILED")), flush=True)
    print(f"{total:,} states")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
