"""Judges edits by the test programs of a folder: copies of the sources, a build of each, every test in a process of its own."""

import fcntl
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

from mutant import output_of

# Most of the time goes into compiling: without optimization, and of the x86 vector units only the least and the greatest.
OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DLOCKSTEP_WERROR=OFF", "-DLOCKSTEP_CUDA=OFF",
           "-DCMAKE_CXX_FLAGS_RELEASE=-O0 -DNDEBUG -DHWY_BROKEN_TARGETS='(HWY_SSE4|HWY_AVX2)'",
           "-DLOCKSTEP_MPI=OFF", "-DLOCKSTEP_NCCL=OFF"]

FIRST_LIMIT = 600  # seconds for one test


class Tree:
    """A copy of the sources and its build, kept between runs so that only what has changed is compiled again."""

    def __init__(self, snapshot, folder):
        self.source = folder / "source"
        self.build = folder / "build"
        old = {path.relative_to(self.source) for path in self.source.rglob("*") if path.is_file()}
        new = {path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()}
        for name in old - new:
            (self.source / name).unlink()
        for name in new:
            self.write(name, (snapshot / name).read_bytes(), (snapshot / name).stat().st_mode)

    def write(self, name, content, mode=None):
        path = self.source / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if mode is not None:
            path.chmod(mode)

    def make(self, programs):
        if not (self.build / "build.ninja").exists():
            output_of("cmake", "-S", self.source, "-B", self.build, "-G", "Ninja", *OPTIONS)
        output_of("ninja", "-C", self.build, "-j1", *programs)


class Test:
    """One test case of a program that has been built in some tree."""

    def __init__(self, program, name, command):
        self.program = program
        self.name = name
        self.command = command  # its program as a path in a build tree
        self.seconds = None  # where nothing is wrong

    def run(self, tree):
        """What went wrong, or nothing. The first time there must not be anything."""
        start = time.monotonic()
        limit = FIRST_LIMIT if self.seconds is None else 30 + 10 * self.seconds
        program = tree.build / self.command[0]
        process = subprocess.Popen([program, *self.command[1:], "--abort"], cwd=program.parent, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            failed = process.wait(timeout=limit) != 0
        except subprocess.TimeoutExpired:
            return f"{self.name}: the time limit of {limit:.0f} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it has started goes with it
            except ProcessLookupError:
                pass
            process.wait()
            if self.seconds is None:
                self.seconds = time.monotonic() - start
        return self.name if failed else ""


class Programs:
    """Finds edits by `programs`, in trees that other tables may use too."""

    def __init__(self, trees, programs):
        self.trees = trees
        self.programs = programs
        self.tests = []
        self.reordering = threading.Lock()

    def prepare(self, pool):
        """Builds them, and returns what fails without any mutant, or nothing."""
        start = time.monotonic()
        list(pool.map(lambda tree: tree.make(self.programs), self.trees.all))
        built = time.monotonic()
        tree = self.trees.all[0]
        for test in json.loads(output_of("ctest", "--test-dir", tree.build, "--show-only=json-v1"))["tests"]:
            program = pathlib.Path(test.get("command", [""])[0])
            if program.name in self.programs:
                self.tests.append(Test(program.name, test["name"], [program.relative_to(tree.build), *test["command"][1:]]))
        failures = list(filter(None, (test.run(tree) for test in self.tests)))
        if not self.tests:
            return f"{', '.join(self.programs)}: there are no tests"
        # What is quick to tell is asked first.
        self.tests.sort(key=lambda test: (self.programs.index(test.program), test.seconds))
        longest = max(self.tests, key=lambda test: test.seconds)
        print(f"# {len(self.tests)} tests of {', '.join(self.programs)}: built in {built - start:.0f} s, "
              f"run in {time.monotonic() - built:.0f} s, of which {longest.seconds:.1f} s are {longest.name}", flush=True)
        return "; ".join(failures)

    def killer(self, edit):
        tree = self.trees.free.get()
        try:
            tree.write(edit.file, edit.broken.encode())
            for program in self.programs:
                tree.make([program])
                for test in list(self.tests):
                    if test.program == program and (failure := test.run(tree)):
                        self.ask_first(test)
                        return failure
            return ""
        finally:
            tree.write(edit.file, edit.text.encode())
            self.trees.free.put(tree)

    def ask_first(self, test):
        """It may find the next edit too, which is often close by."""
        with self.reordering:
            self.tests.remove(test)
            self.tests.insert(0, test)


class Trees:
    """As many trees as there are jobs, in `folder`."""

    def __init__(self, snapshot, folder, jobs):
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = open(folder / "lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another tools/mutants.py is at work in {folder}")
        self.all = [Tree(snapshot, folder / str(job)) for job in range(jobs)]
        self.free = queue.Queue()
        for tree in self.all:
            self.free.put(tree)
