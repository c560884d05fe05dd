#!/usr/bin/env python3
"""Breaks lockstep in small ways, one at a time, and lets its tests find out.

  tools/mutants.py                          all of them
  tools/mutants.py --table=layers,runtime   those of these tables: the files of tools/mutation that hold EDITS
  tools/mutants.py --only=TEXT              those whose file, line or edit contains TEXT
  tools/mutants.py --jobs=N                 so many at a time (the number of cores)

Passes when every broken copy is found out, and those listed as equivalent are not. The sources themselves are left alone: all
of it happens in a copy of what git tracks, made at the start, and in build/mutants, which is kept to make the next run quicker.
"""

import argparse
import concurrent.futures
import functools
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/mutation"))
sys.dont_write_bytecode = True

import mutant  # noqa: E402
import programs  # noqa: E402

ROW = "{:<26} {:<100} {:>6}  {:<10} {}"


def tables():
    """By name."""
    modules = {path.stem: importlib.import_module(path.stem) for path in sorted((ROOT / "tools/mutation").glob("*.py"))}
    return {name: module for name, module in modules.items() if hasattr(module, "EDITS")}


def copy_sources(to):
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True,
                            text=True, stdout=subprocess.PIPE).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def judge(title, judging, edits, pool):
    """Prints what becomes of each edit, and returns how many went wrong."""
    print(f"== {title}", flush=True)
    if failure := judging.prepare(pool):
        sys.exit(f"the sources fail as they are, so that no mutant can be judged: {failure}")
    print(ROW.format("place", "edit", "s", "verdict", "by, or why"))
    counts = dict.fromkeys(["killed", "equivalent", "survived", "not tried"], 0)
    failed = 0
    for edit, result in zip(edits, pool.map(functools.partial(mutant.try_out, judging), edits)):
        counts[result.kind] += 1
        failed += not result.right
        print(ROW.format(edit.place, edit.short, f"{result.seconds:.1f}", result.kind,
                         result.verdict + ("" if result.right else "   FAILED")), flush=True)
    print(f"{title}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind != "not tried"))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", metavar="NAME,...", default="")
    parser.add_argument("--only", metavar="TEXT", default="")
    parser.add_argument("--jobs", metavar="N", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    known = tables()
    names = arguments.table.split(",") if arguments.table else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"--table={','.join(unknown)}: the tables are {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="lockstep_mutants_") as folder, \
         concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        folder = pathlib.Path(folder)
        snapshot = folder / "sources"
        copy_sources(snapshot)
        edits = {name: [mutant.find(snapshot, file, each) for file, mutants in known[name].EDITS.items() for each in mutants]
                 for name in names}
        edits = {name: kept for name, found in edits.items()
                 if (kept := [edit for edit in found if arguments.only in edit.description])}
        if not edits:
            sys.exit(f"--only={arguments.only}: there is no such mutant")
        trees = None
        failed = 0
        for name, found in edits.items():
            if name == "explorer":
                judging = known[name].Explorer(snapshot, folder)
            else:
                trees = trees or programs.Trees(snapshot, ROOT / "build/mutants", arguments.jobs)
                judging = programs.Programs(trees, known[name].PROGRAMS)
            failed += judge(name, judging, found, pool)
    total = sum(map(len, edits.values()))
    print(f"{total - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
