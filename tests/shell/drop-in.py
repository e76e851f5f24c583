#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs qemu-img and qcow2-img with the same options, each alone and in
pairs, and compares exit status and standard output.

drop-in.py QCOW2-IMG MANUAL STRIDE: the options are those that `VERB --help`
names. What may differ is in a table of the manual page (a paragraph after
"=for drop-in"), one row a line:

 KIND VERB OPTION... WHY

where VERB may be * and KIND is
  own      qemu-img does not have these options
  missing  qcow2-img does not have these options
  status   with all of these, a status differs, and the output with it
  output   with all of these, the output differs
  failure  the same, if the command fails
An option with a value (-f=raw) means it with that value. STRIDE 1 runs all
pairs, N every Nth of them.
"""
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

OURS, MANUAL, STRIDE = sys.argv[1], sys.argv[2], int(sys.argv[3])

# Values of options: by verb, then for all verbs. The first is used in pairs.
VALUES = {
    ("amend", "-o"): ["compat=1.1", "lazy_refcounts=on", "compat=0.10",
                      "refcount_bits=64"],
    ("bench", "-c"): ["2"],
    ("bench", "-d"): ["4"],
    ("bench", "-i"): ["threads", "native", "io_uring", "x"],
    ("bench", "-o"): ["4096", "64k"],
    ("bench", "-s"): ["8192", "1k"],
    ("bench", "-S"): ["65536"],
    ("bitmap", "-b"): ["tracked.qcow2"],
    ("bitmap", "-g"): ["4096", "1000", "64k"],
    ("bitmap", "--merge"): ["one", "none"],
    ("check", "-r"): ["all", "leaks"],
    ("convert", "-B"): ["base.qcow2"],
    ("convert", "-S"): ["64k", "0", "4k"],
    ("create", "-b"): ["base.qcow2"],
    ("create", "-o"): ["cluster_size=4096", "compat=0.10", "compat=1.1",
                       "refcount_bits=1", "lazy_refcounts=on",
                       "preallocation=metadata", "preallocation=full",
                       "compression_type=zstd", "size=2M", "help",
                       "nocow=on", "encryption=off", "data_file_raw=off",
                       "extent_size_hint=1M",
                       "extended_l2=on,cluster_size=64k",
                       "backing_file=base.qcow2,backing_fmt=qcow2"],
    ("convert", "-o"): ["cluster_size=4096", "compat=0.10",
                        "extended_l2=on,cluster_size=64k",
                        "preallocation=falloc", "compression_type=zstd",
                        "backing_file=base.qcow2,backing_fmt=qcow2"],
    ("measure", "-o"): ["cluster_size=4096", "compat=0.10",
                        "extended_l2=on,cluster_size=64k",
                        "preallocation=full", "refcount_bits=64"],
    ("snapshot", "-a"): ["one", "1", "none"],
    ("snapshot", "-c"): ["two"],
    ("snapshot", "-d"): ["one", "1"],
    ("commit", "-b"): ["base.qcow2"],
    "-b": ["base.qcow2", ""],
    "-f": ["qcow2", "raw", "x"],
    "-F": ["qcow2", "raw"],
    "-l": ["one", "snapshot.id=1", "snapshot.name=one", "none"],
    "-m": ["4", "1", "17"],
    "-O": ["qcow2", "raw"],
    "-r": ["1000M"],
    "-t": ["writeback", "unsafe", "writethrough", "none", "x"],
    "-T": ["writeback", "unsafe", "none", "x"],
    "--flush-interval": ["2"],
    "--max-length": ["64k"],
    "--output": ["json", "human", "x"],
    "--pattern": ["7"],
    "--preallocation": ["off", "metadata", "falloc", "full", "x"],
    "--size": ["1M", "0", "64T"],
    "--start-offset": ["64k"],
}

# Keys of JSON that only qcow2-img has.
OUR_KEYS = {"verdict", "header", "file-size", "disk-size", "compressed",
            "problems"}


def run(command, cwd=None):
    r = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       env=dict(os.environ, LC_ALL="C"))
    return r.returncode, r.stdout.decode(), r.stderr.decode()


def their_options(verb):
    """Of the line of the verb in qemu-img --help."""
    for line in run(["qemu-img", "--help"])[1].splitlines():
        if line.startswith("  %s " % verb):
            return set(re.findall(r"(?<![\w-])(--?[a-zA-Z][a-z-]*)", line))
    return set()


def our_options(verb, theirs):
    """{option: has a value}: of two forms the one that qemu-img has, or the
    letter."""
    options = {}
    for line in run([OURS, verb, "--help"])[1].splitlines():
        m = re.match(r"  (?:(-[a-zA-Z])(?:, )?|    )(--[a-z-]+)?([= ]\S)?",
                     line)
        if m and (m[1] or m[2]):
            long = m[2] in theirs and m[1] not in theirs
            options[m[2] if long or not m[1] else m[1]] = bool(m[3])
    options.pop("-h", None)
    return options


def read_table():
    rows, on = [], False
    with open(MANUAL) as f:
        for line in f:
            if line.startswith("=for drop-in"):
                on = True
            elif on and line.startswith(" "):
                words = line.split()
                options = list(itertools.takewhile(
                    lambda word: word.startswith("-"), words[2:]))
                rows.append({"kind": words[0], "verb": words[1],
                             "options": options, "used": False,
                             "line": line.strip()})
            elif on and line.startswith("="):
                on = False
    if not rows:
        sys.exit("the manual page has no table")
    return rows


ROWS = read_table()


def listed(kind, verb, option):
    """Is the option in a row of this kind? (own, missing)"""
    found = False
    for row in ROWS:
        if row["kind"] == kind and row["verb"] in ("*", verb) \
           and option in row["options"]:
            row["used"] = found = True
    return found


def allowed(kinds, verb, combination):
    """Is there a row for a difference of this combination?"""
    words = set()
    for option, value in combination:
        words.add(option)
        words.add("%s=%s" % (option, value))
    for row in ROWS:
        if row["kind"] in kinds and row["verb"] in ("*", verb) \
           and words.issuperset(row["options"]):
            row["used"] = True
            return True
    return False


def check_options(verb, ours, theirs):
    """The manual names every option that only one of them has."""
    bad = []
    for option in sorted(set(ours) - theirs):
        if not listed("own", verb, option):
            bad.append("%s: only qcow2-img has %s" % (verb, option))
    for option in sorted(theirs - set(ours)):
        if not listed("missing", verb, option):
            bad.append("%s: only qemu-img has %s" % (verb, option))
    return bad


def values_of(verb, option, has_value):
    if not has_value:
        return [None]
    try:
        return VALUES.get((verb, option)) or VALUES[option]
    except KeyError:
        sys.exit("no values for %s %s" % (verb, option))


def combinations(verb, options):
    """Each option alone with each of its values, and pairs of the first."""
    yield ()
    choices = {o: values_of(verb, o, v) for o, v in options.items()}
    for option, values in choices.items():
        for value in values:
            yield ((option, value),)
    pairs = list(itertools.combinations(sorted(choices), 2))
    start = sum(map(ord, verb)) % STRIDE
    for a, b in pairs[start::STRIDE]:
        yield ((a, choices[a][0]), (b, choices[b][0]))
        if a in ("-f", "-O"):
            yield ((a, choices[a][1]), (b, choices[b][0]))


def image(options, name):
    """The operand: of the format that -f says, or a list of options."""
    if "--image-opts" in options:
        return "driver=qcow2,file.filename=%s.qcow2" % name
    return name + (".raw" if options.get("-f") == "raw" else ".qcow2")


# Where none of these options is given, these are added.
DEFAULTS = {
    "amend": (["-o"], ["-o", "compat=1.1"]),
    "bench": (["-c"], ["-c", "2"]),
    "bitmap": (["--add", "--remove", "--clear", "--enable", "--disable",
                "--merge", "--dump"], ["--add"]),
    "convert": (["-O"], ["-O", "qcow2"]),
    "create": (["-f"], ["-f", "qcow2"]),
    "measure": (["-O"], ["-O", "qcow2"]),
    "snapshot": (["-l", "-a", "-c", "-d"], ["-l"]),
}


def operands(verb, options):
    """What follows the options, and options that are needed at least."""
    if verb in DEFAULTS and not set(DEFAULTS[verb][0]) & set(options):
        return DEFAULTS[verb][1] + operands_alone(verb, options)
    return operands_alone(verb, options)


def operands_alone(verb, options):
    if verb == "bitmap":
        known = set(options) & {"--remove", "--clear", "--enable",
                                "--disable", "--merge"}
        return [image(options, "tracked"),
                "two" if known and "--add" not in options else "three"]
    if verb == "commit":
        return [image(options, "overlay")]
    if verb == "compare":
        other = "same.raw" if options.get("-F") == "raw" else "same.qcow2"
        if "--image-opts" in options:
            other = "driver=qcow2,file.filename=same.qcow2"
        return [image(options, "disk"), other]
    if verb == "convert":
        target = "target" if "-n" in options else "new"
        target += ".raw" if options.get("-O") == "raw" else ".qcow2"
        if "--target-image-opts" in options:
            target = "driver=%s,file.filename=%s" % (
                options.get("-O", "qcow2"), target)
        return [image(options, "disk"), target]
    if verb == "create":
        return ["new"] if options.get("-o") == "size=2M" else ["new", "1M"]
    if verb == "dd":
        return ["if=" + image(options, "disk"), "of=new", "bs=64k"]
    if verb == "measure" and "--size" in options:
        return []
    if verb == "rebase":
        return ([] if "-b" in options or "-u" in options
                else ["-b", "base.qcow2"]) \
            + ([] if "-F" in options else ["-F", "qcow2"]) \
            + [image(options, "overlay")]
    if verb == "resize":
        return [image(options, "disk"),
                "1M" if "--shrink" in options else "+1M"]
    return [image(options, "disk")]


def make_files(where):
    def qemu_img(*args):
        subprocess.run(["qemu-img", *args], cwd=where, check=True)

    def write(name, *commands):
        words = [w for c in commands for w in ("-c", c)]
        subprocess.run(["qemu-io", "-f", "qcow2", *words, name], cwd=where,
                       check=True, stdout=subprocess.DEVNULL)

    os.mkdir(where)
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "2M")
    write("base.qcow2", "write -P 1 0 256k", "write -P 2 1M 64k")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
             "overlay.qcow2")
    write("overlay.qcow2", "write -P 3 128k 256k")
    qemu_img("create", "-q", "-f", "qcow2", "disk.qcow2", "2M")
    write("disk.qcow2", "write -P 4 64k 512k", "write -z 1M 64k")
    qemu_img("snapshot", "-c", "one", "disk.qcow2")
    qemu_img("convert", "-O", "qcow2", "disk.qcow2", "same.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "tracked.qcow2", "2M")
    for name in "one", "two":
        qemu_img("bitmap", "--add", "tracked.qcow2", name)
    for name in "disk", "same", "base", "overlay", "tracked":
        qemu_img("convert", "-O", "raw", name + ".qcow2", name + ".raw")
    qemu_img("create", "-q", "-f", "qcow2", "target.qcow2", "2M")
    qemu_img("create", "-q", "-f", "raw", "target.raw", "2M")


def without_our_keys(value):
    if isinstance(value, dict):
        return {k: without_our_keys(v) for k, v in value.items()
                if k not in OUR_KEYS}
    if isinstance(value, list):
        return [without_our_keys(v) for v in value]
    return value


def normal(text):
    """JSON by its meaning; how far it is and how long it took left out."""
    text = re.sub(r" *\(\d+\.\d+/100%\)\r?", "", text)
    text = re.sub(r"Run completed in [\d.]+ seconds", "Run completed", text)
    try:
        return without_our_keys(json.loads(text))
    except ValueError:
        return text.strip()


def run_in_new_files(program, words):
    shutil.rmtree("work", ignore_errors=True)
    shutil.copytree("made", "work")
    return run([program, *words], cwd="work")


def compare(verb, combination):
    """None, or what differs."""
    words = [verb]
    for option, value in combination:
        if value is None:
            words.append(option)
        elif option.startswith("--"):
            words.append("%s=%s" % (option, value))
        else:
            words += [option, value]
    words += operands(verb, dict(combination))
    theirs = run_in_new_files("qemu-img", words)
    ours = run_in_new_files(OURS, words)
    if ours[0] < 0:
        return "%s: died of signal %d" % (" ".join(words), -ours[0])
    kinds = ["status"]  # of rows that allow a difference
    if theirs[0] == ours[0]:
        if normal(theirs[1]) == normal(ours[1]):
            return None
        kinds = ["output", "failure"] if ours[0] else ["output"]
    if allowed(kinds, verb, combination):
        return None
    return "%s\n  qemu-img: status %d\n%s%s  qcow2-img: status %d\n%s%s" % (
        " ".join(words), *theirs, *ours)


def main():
    verbs = [line.split()[0] for line in run([OURS, "--help"])[1].splitlines()
             if re.match(r"  [a-z]", line)]
    bad, nr = [], 0
    make_files("made")
    for verb in verbs:
        theirs = their_options(verb)
        if not theirs:
            continue  # not in qemu-img
        ours = our_options(verb, theirs)
        bad += check_options(verb, ours, theirs)
        both = {o: v for o, v in ours.items() if o in theirs}
        for combination in combinations(verb, both):
            nr += 1
            difference = compare(verb, combination)
            if difference:
                bad.append(difference)
    if STRIDE == 1:
        bad += ["not needed: " + r["line"] for r in ROWS if not r["used"]]
    print("\n".join(bad))
    print("%d command lines compared, %d differ" % (nr, len(bad)))
    sys.exit(bool(bad))


main()
