"""One small edit of a source, and the text that it stands for."""

import dataclasses
import pathlib
import re
import subprocess
import sys
import time


@dataclasses.dataclass
class Mutant:
    """Turns `old` into `new`. A space stands for any white space and comments; `old` occurs once, unless `occurrence` is given."""
    old: str
    new: str
    equivalent: str = ""  # why nobody could tell
    occurrence: int | None = None  # counted from 1, where `old` stands more than once


@dataclasses.dataclass
class Result:
    kind: str  # killed, equivalent, survived or not tried
    verdict: str
    seconds: float
    right: bool


def output_of(*command):
    """Of a command that compiles, or finds that it does not."""
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        error = re.search(r"error: .*", done.stdout)
        raise RuntimeError(f"does not compile: {error[0] if error else done.stdout.strip()[-200:]}")
    return done.stdout


def try_out(judging, edit):
    """What it means that judging.killer(edit) names what found the edit, or nobody: an empty text."""
    start = time.monotonic()
    mutant = edit.mutant
    try:
        killer = judging.killer(edit)
    except RuntimeError as error:
        return Result("not tried", str(error), time.monotonic() - start, False)
    seconds = time.monotonic() - start
    if killer:
        return Result("killed", killer, seconds, not mutant.equivalent)
    return Result("equivalent" if mutant.equivalent else "survived", mutant.equivalent, seconds, bool(mutant.equivalent))


def pattern_of(text):
    """Matches `text` however it is laid out."""
    return r"(?:\s|//[^\n]*\n)+".join(re.escape(word) for word in text.split())


@dataclasses.dataclass
class Edit:
    """A mutant in its file."""
    file: str  # from the root
    mutant: Mutant
    text: str  # the file as it is
    start: int
    end: int

    @property
    def broken(self):
        return self.text[:self.start] + self.mutant.new + self.text[self.end:]

    def parts(self):
        """What both sides begin with, the two differences, and what both end with."""
        old, new = (re.findall(r"\s+|\w+|[=!<>&|]+|[^\w\s]", side) for side in (self.mutant.old, self.mutant.new))
        shorter = min(len(old), len(new))
        begin = next((i for i in range(shorter) if old[i] != new[i]), shorter)
        rest = shorter - begin
        end = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
        return ["".join(part) for part in (old[:begin], old[begin:len(old) - end], new[begin:len(new) - end], old[len(old) - end:])]

    @property
    def place(self):
        before = re.match(pattern_of(self.parts()[0]), self.text[self.start:])
        line = self.text.count("\n", 0, self.start + before.end()) + 1
        return f"{pathlib.Path(self.file).name}:{line}"

    @property
    def description(self):
        return f"{self.file} {self.place} {self.short} {self.mutant.old} -> {self.mutant.new}"

    @property
    def short(self):
        def cut(text, length):
            return text if len(text) <= length else text[:length - 3] + "..."

        begin, old, new, end = self.parts()
        return f"{begin[-30:]}[{cut(old.strip(), 40)} -> {cut(new.strip(), 40)}]{end[:max(0, 30 - len(old))]}"


def find(root, file, mutant):
    path = root / file
    if not path.exists():
        sys.exit(f"the table is stale: there is no {file}")
    text = path.read_text()
    found = list(re.finditer(pattern_of(mutant.old), text))
    wanted = mutant.occurrence or 1
    if len(found) < wanted or (mutant.occurrence is None and len(found) != 1):
        sys.exit(f"the table is stale: {file} has {len(found)} times: {mutant.old}")
    match = found[wanted - 1]
    return Edit(file, mutant, text, match.start(), match.end())
