"""Edits of the barrier word and of the handover, judged by lockstep_explore. tests/explore/README.md tells what is explored."""

import os
import pathlib
import re
import subprocess
import tempfile

from mutant import Mutant, output_of

EXPLORE = "tests/explore"
COMPILER = os.environ.get("CXX", "g++")
FIRST_LOOK = 2000  # executions of each search, which nearly all mutants do not survive
TIME_LIMIT = 200  # seconds for one run of the explorer
# Most of the time goes into compiling what dies at once; what does not pays for a program that runs fast.
QUICKLY, WELL = "-Og", "-O1"

BARRIER = [
    # What others must see: memory orders.
    Mutant("Unpack(word_.load(std::memory_order_seq_cst))", "Unpack(word_.load(std::memory_order_acquire))"),
    Mutant("Unpack(word_.load(std::memory_order_seq_cst))", "Unpack(word_.load(std::memory_order_relaxed))"),
    Mutant("Pack(next), std::memory_order_acq_rel,", "Pack(next), std::memory_order_acquire,"),
    Mutant("Pack(next), std::memory_order_acq_rel,", "Pack(next), std::memory_order_release,",
           "what is exchanged is the very store that an acquire has read before: no value comes back between the two"),
    Mutant("std::memory_order_acq_rel, std::memory_order_acquire)", "std::memory_order_acq_rel, std::memory_order_relaxed)"),
    Mutant("if (word_.compare_exchange_weak(expected, Pack(next), std::memory_order_acq_rel, std::memory_order_acquire)) {",
           "(void)expected; word_.store(Pack(next), std::memory_order_release); {"),
    Mutant("seen = Unpack(expected);", ""),
    # Arriving.
    Mutant("fetch_sub(1, std::memory_order_acq_rel)", "fetch_sub(1, std::memory_order_acquire)"),
    Mutant("fetch_sub(1, std::memory_order_acq_rel)", "fetch_sub(1, std::memory_order_release)"),
    Mutant("missing_.fetch_sub(1, std::memory_order_acq_rel)",
           "missing_.exchange(missing_.load(std::memory_order_acquire) - 1, std::memory_order_acq_rel)"),
    Mutant("std::memory_order_acq_rel) == 1;", "std::memory_order_acq_rel) <= 2;"),
    Mutant("std::memory_order_acq_rel) == 1;", "std::memory_order_acq_rel) == 2;"),
    Mutant("if (mine.epoch != epoch) return {.verdict = Verdict::kStale};", ""),
    Mutant("if (mine.poison != 0) return Poisoned(mine);", ""),
    Mutant("if (mine.epoch != epoch) return {.verdict = Verdict::kStale}; if (mine.poison != 0) return Poisoned(mine);",
           "if (mine.poison != 0) return Poisoned(mine); if (mine.epoch != epoch) return {.verdict = Verdict::kStale};"),
    Mutant("mine.departed == 0 && missing_", "missing_"),
    Mutant("Complete(rank, mine, agree())", "Complete(rank, mine, true)"),
    Mutant("last ? Complete(rank, mine, agree())", "agree() && last ? Complete(rank, mine, true)"),
    # Releasing.
    Mutant("missing_.store(world_size_, std::memory_order_relaxed); Outcome", "Outcome"),
    Mutant("missing_.store(world_size_, std::memory_order_relaxed); Outcome", "missing_.store(1, std::memory_order_relaxed); Outcome"),
    Mutant("if (!Exchange(seen, Completed(seen))) continue;",
           "if (!Exchange(seen, Completed(seen))) continue; missing_.store(world_size_, std::memory_order_relaxed);"),
    Mutant("if (!Exchange(seen, Completed(seen))) continue;", "Exchange(seen, Completed(seen));"),
    Mutant("State seen = mine; while (!Over(seen, mine, outcome)) { if (!agreed)",
           "State seen = mine; for (;;) { if (!agreed)"),
    Mutant("if (!TryPoison(seen, rank)) continue; outcome.culprit = rank; break; } if",
           "TryPoison(seen, rank); outcome.culprit = rank; break; } if"),
    Mutant("outcome.culprit = rank; break; } if", "break; } if"),
    Mutant("if (seen.parked) Platform::UnparkAll(word_); return {", "return {"),
    Mutant("if (seen.parked) Platform::UnparkAll(word_); return {", "if (!seen.parked) Platform::UnparkAll(word_); return {"),
    Mutant("if (seen.parked) Platform::UnparkAll(word_); return {", "Platform::UnparkAll(word_); return {"),
    Mutant("if (!Exchange(seen, Completed(seen))) continue; if (seen.parked) Platform::UnparkAll(word_);",
           "if (seen.parked) Platform::UnparkAll(word_); if (!Exchange(seen, Completed(seen))) continue;"),
    Mutant(".arrived = true, .last = true}", ".arrived = true}"),
    Mutant("State next = seen; next.parked = false; next.generation", "State next = seen; next.generation"),
    Mutant("kGeneration.Next(seen.generation)", "seen.generation"),
    # Poisoning.
    Mutant("while (seen.epoch == epoch && seen.poison == 0 && !TryPoison", "while (seen.poison == 0 && !TryPoison"),
    Mutant("while (seen.epoch == epoch && seen.poison == 0 && !TryPoison", "while (seen.epoch == epoch && !TryPoison"),
    Mutant("while (seen.epoch == epoch && seen.poison == 0 && !TryPoison", "if (seen.epoch == epoch && seen.poison == 0 && !TryPoison"),
    Mutant("next.parked = false; const bool parked", "const bool parked",
           "nobody sleeps at a poisoned word, nobody asks whether one does, and a reset clears the bit"),
    Mutant("const bool parked = seen.parked;", "const bool parked = next.parked;"),
    Mutant("if (!Exchange(seen, next)) return false;", "Exchange(seen, next);"),
    Mutant("if (parked) Platform::UnparkAll(word_);", ""),
    Mutant("return {seen.epoch, static_cast<int>(seen.poison) - 1}", "return {seen.epoch, static_cast<int>(seen.poison)}"),
    # Departing and returning.
    Mutant("next.departed = seen.departed + 1;", ""),
    Mutant("+ 1; next.parked = false; } while", "+ 1; } while"),
    Mutant("while (!Exchange(seen, next)); if", "while (!Exchange(seen, next) && false); if"),
    Mutant("if (seen.parked) Platform::UnparkAll(word_); }", "}"),
    Mutant("if (seen.parked) Platform::UnparkAll(word_); }", "if (!seen.parked) Platform::UnparkAll(word_); }"),
    Mutant("next.departed = 0;", "next.departed = 1;"),
    Mutant("while (!Exchange(seen, next)); }", "while (!Exchange(seen, next) && false); }"),
    # Resetting.
    Mutant("while (seen.poison != 0) {", "for (;;) {"),
    Mutant("while (seen.poison != 0) {", "if (seen.poison != 0) {"),
    Mutant("missing_.store(world_size_, std::memory_order_relaxed); if (Exchange(", "if (Exchange("),
    Mutant("{.generation = seen.generation, .departed", "{.departed",
           "who waits compares generations within one epoch, which may begin with any of them"),
    Mutant(".departed = seen.departed, .epoch", ".epoch"),
    Mutant(".epoch = kEpoch.Next(seen.epoch)", ".epoch = seen.epoch"),
    # The bits of the word. A field that is too small, or where another one is, does not compile.
    Mutant("return (value + 1) & max();", "return value + 1;"),
    Mutant("static_cast<std::uint32_t>(word >> shift) & max()", "static_cast<std::uint32_t>(word >> shift)"),
    Mutant("return std::uint64_t{value} << shift;", "return std::uint64_t{value << shift};"),
    Mutant("static_cast<std::uint32_t>(Pack(state))", "static_cast<std::uint32_t>(Pack(state) >> 1)"),
    # Waiting.
    Mutant("if (seen.epoch != mine.epoch) {", "if (false) {"),
    Mutant("} else if (seen.generation != mine.generation) {", "} else if (false) {"),
    Mutant("} else if (seen.generation != mine.generation) { outcome.verdict = Verdict::kCompleted; } else if (seen.poison != 0) { "
           "outcome.verdict = Verdict::kPoisoned; outcome.culprit = static_cast<int>(seen.poison) - 1; }",
           "} else if (seen.poison != 0) { outcome.verdict = Verdict::kPoisoned; outcome.culprit = static_cast<int>(seen.poison) - 1; } "
           "else if (seen.generation != mine.generation) { outcome.verdict = Verdict::kCompleted; }"),
    Mutant("outcome.culprit = static_cast<int>(seen.poison) - 1;", "outcome.culprit = static_cast<int>(seen.poison);"),
    Mutant(".arrived = mine.departed == 0}; const Clock", "}; const Clock"),
    Mutant("patience.Await(start, deadline, ends);", ""),
    Mutant("return seen.departed != 0 || Over(", "return Over("),
    Mutant("return seen.departed != 0 || Over(seen, mine, outcome);", "return true;"),
    Mutant("deadline = start + timeout;", "deadline = start;"),
    Mutant("patience.Await(start, deadline, ends)", "patience.Await(start, Clock::time_point::max(), ends)"),
    Mutant("!departed && Platform::Now() < deadline", "!departed && Platform::Now() <= deadline"),
    Mutant("!departed && Platform::Now() < deadline", "Platform::Now() < deadline"),
    Mutant("departed = seen.departed != 0;", "departed = seen.departed > 1;"),
    Mutant("Sleep(seen, deadline); continue;", "Sleep(seen, deadline);"),
    Mutant("explain(departed ? Reason::kDeparted : Reason::kTimeout);", ""),
    Mutant("explain(departed ? Reason::kDeparted : Reason::kTimeout);", "explain(Reason::kTimeout);"),
    Mutant("explain(departed ? Reason::kDeparted : Reason::kTimeout);", "explain(Reason::kDeparted);"),
    Mutant("explain(departed ? Reason::kDeparted : Reason::kTimeout); if (!TryPoison(seen, rank)) continue;",
           "if (!TryPoison(seen, rank)) continue; explain(departed ? Reason::kDeparted : Reason::kTimeout);"),
    Mutant("if (!TryPoison(seen, rank)) continue; outcome.culprit = rank; break; } outcome.waited",
           "TryPoison(seen, rank); outcome.culprit = rank; break; } outcome.waited"),
    Mutant("outcome.culprit = rank; break; } outcome.waited", "break; } outcome.waited"),
    Mutant("outcome.waited = Platform::Now() - start;", ""),
    # Sleeping.
    Mutant("parked.parked = true;", ""),
    Mutant("if (!seen.parked && !Exchange(seen, parked)) return;", ""),
    Mutant("if (!seen.parked && !Exchange(seen, parked)) return;", "if (!seen.parked) Exchange(seen, parked);",
           "who did not set the bit sleeps only if another rank has, and the word is otherwise what this one saw"),
    Mutant("if (!seen.parked && !Exchange(seen, parked)) return;", "if (!Exchange(seen, parked)) return;",
           "with the bit set, the exchange writes what stands there already"),
    Mutant("Platform::Park(word_, LowHalf(parked), deadline);", ""),
    Mutant("Platform::Park(word_, LowHalf(parked), deadline);", "Platform::Park(word_, LowHalf(seen), deadline);"),
    Mutant("Platform::Park(word_, LowHalf(parked), deadline);", "Platform::Park(word_, LowHalf(Load()), deadline);"),
    Mutant("Platform::Park(word_, LowHalf(parked), deadline);", "Platform::Park(word_, LowHalf(parked), Clock::time_point::max());"),
    Mutant("deadline); seen = Load();", "deadline);"),
]

HANDOVER = [
    # What others must see: memory orders.
    Mutant("std::memory_order_release, std::memory_order_relaxed)", "std::memory_order_relaxed, std::memory_order_relaxed)"),
    Mutant("fetch_sub(2, std::memory_order_acq_rel)", "fetch_sub(2, std::memory_order_acquire)"),
    Mutant("fetch_sub(2, std::memory_order_acq_rel)", "fetch_sub(2, std::memory_order_release)",
           "a read-modify-write passes on what those before it released, and nobody looks at the others' results before the caller"),
    Mutant("seen = word.load(std::memory_order_acquire);", "seen = word.load(std::memory_order_relaxed);", occurrence=1),
    Mutant("seen = word.load(std::memory_order_acquire);", "seen = word.load(std::memory_order_relaxed);", occurrence=2),
    Mutant("parked, std::memory_order_acquire, std::memory_order_acquire)", "parked, std::memory_order_relaxed, std::memory_order_acquire)",
           "what it replaces is no news for this thread, which looks again after its sleep"),
    Mutant("parked, std::memory_order_acquire, std::memory_order_acquire)", "parked, std::memory_order_acquire, std::memory_order_relaxed)"),
    Mutant("while (!work_.compare_exchange_weak(seen, std::uint64_t{Next(Count(seen))} << 1, std::memory_order_release, "
           "std::memory_order_relaxed)) { }", "work_.store(std::uint64_t{Next(Count(seen))} << 1, std::memory_order_release);"),
    # Handing over.
    Mutant("Count(work_.load(std::memory_order_relaxed))", "Next(Count(work_.load(std::memory_order_relaxed)))"),
    Mutant("pending_.store(static_cast<std::uint64_t>(num_threads) << 1, std::memory_order_relaxed);", ""),
    Mutant("pending_.store(static_cast<std::uint64_t>(num_threads) << 1, std::memory_order_relaxed); "
           "std::uint64_t seen = work_.load(std::memory_order_relaxed); "
           "while (!work_.compare_exchange_weak(seen, std::uint64_t{Next(Count(seen))} << 1, std::memory_order_release, "
           "std::memory_order_relaxed)) { }",
           "std::uint64_t seen = work_.load(std::memory_order_relaxed); "
           "while (!work_.compare_exchange_weak(seen, std::uint64_t{Next(Count(seen))} << 1, std::memory_order_release, "
           "std::memory_order_relaxed)) { } "
           "pending_.store(static_cast<std::uint64_t>(num_threads) << 1, std::memory_order_relaxed);"),
    Mutant("if ((seen & kParked) != 0) Platform::UnparkAll(work_);", ""),
    Mutant("std::uint64_t{Next(Count(seen))} << 1", "std::uint64_t{Count(seen)} << 1"),
    Mutant("if ((seen & kParked) != 0) Platform::UnparkAll(work_);", "if ((seen & kParked) != 0) Platform::UnparkAll(pending_);"),
    Mutant("return count != last;", "return count == last;"),
    Mutant("return count != last;", "return count > last;"),
    # Being done.
    Mutant("pending_.fetch_sub(2,", "pending_.fetch_sub(1,"),
    Mutant("if (Count(before) == 1 && (before & kParked) != 0)", "if (Count(before) == 1)"),
    Mutant("if (Count(before) == 1 && (before & kParked) != 0)", "if ((before & kParked) != 0)"),
    Mutant("if (Count(before) == 1 && (before & kParked) != 0)",
           "if (Count(pending_.load(std::memory_order_acquire)) == 0 && (before & kParked) != 0)"),
    Mutant("if (Count(before) == 1 && (before & kParked) != 0) Platform::UnparkAll(pending_);", ""),
    Mutant("return count == 0;", "return count <= 1;"),
    # Waiting.
    Mutant("if (look()) return Count(seen);", "look();",
           equivalent="a shortcut that spares the clock: what follows finds the same"),
    Mutant("patience.Await(start, Clock::time_point::max(), look);", ""),
    Mutant("while (!ready(Count(seen))) {", "if (!ready(Count(seen))) {"),
    Mutant("const std::uint64_t parked = seen | kParked;", "const std::uint64_t parked = seen;"),
    Mutant("seen == parked || word.", "word.", "with the bit set, the exchange writes what stands there already"),
    Mutant("static_cast<std::uint32_t>(parked), Platform", "static_cast<std::uint32_t>(seen), Platform"),
    Mutant("static_cast<std::uint32_t>(parked), Platform",
           "static_cast<std::uint32_t>(word.load(std::memory_order_acquire)), Platform"),
    Mutant("Platform::Park(word, static_cast<std::uint32_t>(parked), Platform::Now() + kNap);", ""),
    Mutant("kNap); seen = word.load(std::memory_order_acquire);", "kNap);"),
]

EDITS = {"collective/barrier_word.h": BARRIER, "runtime/handover.h": HANDOVER}

# The scenarios that run each header.
GROUPS = {"collective/barrier_word.h": "barrier", "runtime/handover.h": "handover"}

# What the sources of the explorer include besides the headers above.
PREAMBLE = """
#include <algorithm>
#include <optional>
#include "lockstep/runtime/futex.h"
#include "lockstep/tests/explore/scenario.h"
#include "lockstep/tests/explore/simulated_platform.h"
"""


def explore(program, group, *flags):
    """What went wrong, or nothing."""
    try:
        done = subprocess.run([program, f"--only={group}", *flags], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"the time limit of {TIME_LIMIT} s"
    failure = re.search(r"^(\S+) +\d+ ranks .*\nFAILED: (.*)$", done.stdout, re.MULTILINE)
    if failure:
        return f"{failure[1]}: {failure[2]}"
    if done.returncode != 0:
        raise RuntimeError(f"the explorer ended with {done.returncode}: {done.stdout.strip()[-100:]}")
    return ""


class Explorer:
    """The explorer as it is, to be linked anew with what a mutant changes."""

    def __init__(self, root, folder):
        self.root = root
        self.folder = folder
        self.sources = sorted((root / EXPLORE).glob("*.cc"))

    def prepare(self, pool):
        """Builds it, and returns what fails without any mutant, or nothing."""
        (self.folder / "base").mkdir()
        (self.folder / "base/lockstep").symlink_to(self.root)
        list(pool.map(lambda source: self.compile(source, self.object(source), "-O3", "-MMD"), self.sources))
        for level in (QUICKLY, WELL):
            preamble = self.preamble(level)
            preamble.write_text(PREAMBLE)
            self.compile(preamble, f"{preamble}.gch", level, "-x", "c++-header")
        output_of(COMPILER, *map(self.object, self.sources), "-o", self.folder / "explore")
        failures = [explore(self.folder / "explore", group, f"--max-executions={FIRST_LOOK}") for group in GROUPS.values()]
        return next(filter(None, failures), "")

    def killer(self, edit):
        group = GROUPS[edit.file]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            folder = pathlib.Path(folder)
            killer = explore(self.explorer_with(edit, folder, QUICKLY), group, f"--max-executions={FIRST_LOOK}")
            return killer or explore(self.explorer_with(edit, folder, WELL), group)

    def object(self, source):
        return self.folder / f"{source.stem}.o"

    def preamble(self, level):
        return self.folder / f"preamble{level}.h"

    def includes(self, source, header):
        return f"lockstep/{header}" in self.object(source).with_suffix(".d").read_text()

    def compile(self, source, out, *flags, header_folder=None):
        first = [f"-I{header_folder}"] if header_folder else []
        output_of(COMPILER, "-std=c++20", *flags, *first, f"-I{self.folder}/base", "-c", source, "-o", out)

    def explorer_with(self, edit, folder, level):
        """Built in `folder`."""
        copy = folder / "lockstep" / edit.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(edit.broken)
        objects = []
        for source in self.sources:
            if not self.includes(source, edit.file):
                objects.append(self.object(source))
                continue
            objects.append(folder / f"{source.stem}.o")
            self.compile(source, objects[-1], level, "-include", self.preamble(level), header_folder=folder)
        output_of(COMPILER, *objects, "-o", folder / "explore")
        return folder / "explore"
