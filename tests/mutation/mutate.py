#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""mutate.py: breaks the engine on purpose and sees to it that a test notices.

Each file NAME.mutation beside this script is one breakage: first what it
breaks and which tests are to notice, then what is changed where:

    Breaks I2: an entry is on disk before what it points to.
    Caught by data/test-write-order, crash/test-workloads

    --- qcow2/flush.c write_stages
         if (first_line() == -1
    -        || old_line() == -1)
    +        || new_line() == -1)

The lines of a change are as in a patch, but stand anywhere in the function
(or the file, where no function is named), exactly once, and however they are
broken into lines. So other changes of the file do not matter, and what has
been rewritten is told, not guessed at.

The sources are copied to another directory and built there with CC and CFLAGS
of the environment; the tests must pass there first. Then each mutation is
made in turn, built and tested until the first test fails. One that is not
noticed, no longer applies or does not build is an error.
"""
import argparse
import fnmatch
import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SKIPPED = 77
# A mutant may wait for ever. A test gets so many times what it took without,
# and at least so many seconds.
PATIENCE_TIMES, PATIENCE_SECONDS = 10, 60
# What builds in and below the source tree leave there.
NOT_COPIED = (
    ".git", "build", "build-*", "autom4te.cache", "coverage", "*.o", "*.lo",
    "*.la", "*.a", ".deps", ".libs", "Makefile", "config.h", "config.status",
    "config.log", "libtool", "stamp-h1", "*.log", "*.trs")


def not_copied(_directory, names):
    return {name for name in names if name != "build-aux"
            and any(fnmatch.fnmatch(name, p) for p in NOT_COPIED)}


class Stale(Exception):
    """The sources are no longer what the mutation is about."""


class Change:
    def __init__(self, path, function):
        self.path, self.function = path, function
        self.old, self.new = [], []

    def add(self, line):
        if line[:1] in (" ", "-"):
            self.old.append(line[1:])
        if line[:1] in (" ", "+"):
            self.new.append(line[1:])
        if line and line[0] not in " -+":
            raise Stale(f"not a line of a change: {line}")

    def region(self, text):
        if not self.function:
            return 0, len(text)
        found = re.search(r"^%s\([^;{]*\)\n\{.*?^\}"
                          % re.escape(self.function), text, re.M | re.S)
        if not found:
            raise Stale(f"{self.path} has no function {self.function}")
        return found.span()

    def apply(self, text):
        start, end = self.region(text)
        words = " ".join(self.old).split()
        pattern = re.compile(r"\s+".join(map(re.escape, words)))
        hits = list(pattern.finditer(text, start, end)) if words else []
        if len(hits) != 1:
            where = f"{self.path} {self.function}".strip()
            raise Stale(f"in {where}, {len(hits)} times instead of once: "
                        + " ".join(words))
        hit = hits[0]
        return (text[:hit.start()] + "\n".join(self.new).strip()
                + text[hit.end():])


class Mutation:
    def __init__(self, path):
        self.name = os.path.basename(path)[:-len(".mutation")]
        self.changes, head = [], []
        with open(path, encoding="utf-8") as file:
            for line in file.read().splitlines():
                if line.startswith("--- "):
                    self.changes.append(Change(*(line.split() + [""])[1:3]))
                elif self.changes:
                    self.changes[-1].add(line)
                else:
                    head.append(line)
        found = re.fullmatch(r"Breaks ([IDN]\d+(?:, [IDN]\d+)*): (.*) "
                             r"Caught by (.*)", " ".join(head).strip())
        if not found or not self.changes:
            raise Stale("the head is not 'Breaks …: … Caught by …'")
        self.invariant, self.why = found[1], found[2]
        self.tests = found[3].split(", ")

    def apply(self, top):
        """The changed files' texts by path."""
        texts = {}
        for change in self.changes:
            if change.path not in texts:
                with open(os.path.join(top, change.path),
                          encoding="utf-8") as file:
                    texts[change.path] = file.read()
            texts[change.path] = change.apply(texts[change.path])
        return texts


def load(names):
    """The mutations, and how many of them are of no use."""
    mutations, bad = [], 0
    paths = [os.path.join(HERE, n + ".mutation") for n in names]
    for path in paths or sorted(glob.glob(os.path.join(HERE, "*.mutation"))):
        try:
            mutation = Mutation(path)
            mutation.apply(TOP)
            for test in mutation.tests:
                if not glob.glob(os.path.join(TOP, "tests", test) + "*"):
                    raise Stale(f"there is no test {test}")
            mutations.append(mutation)
        except (Stale, OSError) as error:
            print(f"{path}: {error}")
            bad += 1
    return mutations, bad


class Build:
    """A copy of the sources, and what is built of it."""

    def __init__(self, scratch, jobs):
        self.source = os.path.join(scratch, "source")
        self.build = os.path.join(scratch, "build")
        self.jobs = f"-j{jobs}"
        self.seconds = {}
        self.env = {k: v for k, v in os.environ.items()
                    if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        self.env.update(TMPDIR=scratch, abs_top_srcdir=self.source)
        self.env["PATH"] += ":/usr/sbin:/sbin"

    def run(self, *command, cwd=None):
        result = subprocess.run(command, cwd=cwd or self.build, env=self.env,
                                stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.STDOUT, check=False)
        return result.returncode, result.stdout

    def must_run(self, *command, cwd=None):
        status, output = self.run(*command, cwd=cwd)
        if status != 0:
            sys.exit(f"{output}\n{' '.join(command)}: exit status {status}")

    def prepare(self):
        shutil.copytree(TOP, self.source, ignore=not_copied)
        os.mkdir(self.build)
        if not os.path.exists(os.path.join(self.source, "configure")):
            self.must_run("autoreconf", "-i", cwd=self.source)
        self.must_run("../source/configure", "-q")
        self.must_run("make", self.jobs, "-C", "tests", "functions.sh",
                      "support/libsupport.a")

    def make(self, tests):
        """None, or what kept it from being built."""
        programs = [t for t in tests if not t.endswith(".sh")]
        targets = [["-C", "qcow2"], ["-C", "tests"] + programs]
        if len(programs) < len(tests):
            targets[1:1] = [["-C", "qcow2/tool"], ["-C", "plugin"]]
        for target in targets:
            status, output = self.run("make", self.jobs, *target)
            if status != 0:
                return output
        return None

    def test(self, test, patience):
        """None if it passes, else what failed in it."""
        command = ["bash", os.path.join(self.source, "tests", test)]
        if not test.endswith(".sh"):
            command = [os.path.join(self.build, "tests", test)]
        child = subprocess.Popen(command, env=self.env, text=True,
                                 cwd=os.path.join(self.build, "tests"),
                                 stdout=subprocess.PIPE, errors="replace",
                                 stderr=subprocess.STDOUT,
                                 stdin=subprocess.DEVNULL,
                                 start_new_session=True)
        output = wait_for(child, patience)
        if output is None:
            os.killpg(child.pid, signal.SIGKILL)
            return part_of(child.communicate()[0]) + " (hung)"
        if child.returncode == 0:
            return None
        if child.returncode == SKIPPED:
            sys.exit(f"{test} was skipped: {output}")
        return part_of(output)

    def try_baseline(self, tests):
        output = self.make(tests)
        if output:
            sys.exit(output)
        for test in tests:
            start = time.monotonic()
            failed = self.test(test, 3600)
            if failed is not None:
                sys.exit(f"{test} fails without a mutation: {failed}")
            self.seconds[test] = time.monotonic() - start
            print(f"  {test}: passes in {self.seconds[test]:.1f} s",
                  flush=True)

    def catch(self, mutation):
        """Whether it is caught, and by what."""
        texts = mutation.apply(self.source)
        saved = {}
        for path, text in texts.items():
            path = os.path.join(self.source, path)
            with open(path, encoding="utf-8") as file:
                saved[path] = file.read()
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        try:
            output = self.make(mutation.tests)
            if output:
                print(output)
                return False, "DOES NOT BUILD"
            for test in mutation.tests:
                patience = max(PATIENCE_SECONDS,
                               PATIENCE_TIMES * self.seconds[test])
                failed = self.test(test, patience)
                if failed is not None:
                    return True, f"{test}: {failed}"
            return False, "SURVIVES"
        finally:
            for path, text in saved.items():
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)


def wait_for(child, patience):
    """Its output, or None. Time in which the machine slept does not count."""
    for _ in range(int(patience)):
        try:
            return child.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired:
            pass
    return None


def part_of(output):
    """The part of a test program that ran last, by its name."""
    parts = re.findall(r"^\[ RUN      \] (\S+)", output, re.M)
    failed = re.findall(r"^\[  FAILED  \] (\S+)$", output, re.M)
    return (failed[:1] + parts[-1:] + ["it fails"])[0]


def run_all(mutations, scratch, jobs):
    build = Build(scratch, jobs)
    build.prepare()
    print("Without a mutation:")
    build.try_baseline(sorted({t for m in mutations for t in m.tests}))
    width = max(len(m.name) for m in mutations)
    print(f"\n{'mutation':{width}}  breaks  seconds  caught by")
    missed = 0
    for mutation in mutations:
        start = time.monotonic()
        caught, how = build.catch(mutation)
        missed += not caught
        print(f"{mutation.name:{width}}  {mutation.invariant:6}  "
              f"{time.monotonic() - start:7.1f}  {how}", flush=True)
    print(f"\n{len(mutations)} mutations, {missed} of them not caught")
    return missed


def main():
    parser = argparse.ArgumentParser(
        description="Breaks the engine, and sees that a test notices.")
    parser.add_argument("--check", action="store_true",
                        help="only see that every mutation applies")
    parser.add_argument("-j", type=int, default=os.cpu_count(), dest="jobs",
                        help="jobs of make (default: one a processor)")
    parser.add_argument("names", nargs="*", metavar="MUTATION",
                        help="only these, as files are named here")
    args = parser.parse_args()

    mutations, bad = load(args.names)
    if not mutations:
        sys.exit("there are no mutations")
    if not args.check:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with tempfile.TemporaryDirectory(prefix="nbdkit-qcow2-mutation.",
                                         ignore_cleanup_errors=True) as tmp:
            bad += run_all(mutations, tmp, args.jobs)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
