# SPDX-License-Identifier: BSD-3-Clause
# every-verb-costs-little.py TOOL: runs every verb of qcow2-img on each of the
# small images of costly-images.py, and on chains and directories of such
# images, in the current directory. None may take more than 256 MiB, nor more
# than 10 s of the processor; the verbs that read all of a disk take as long as
# it is large, so they are stopped after a while.

import os, signal, struct, subprocess, sys

TOOL = sys.argv[1]
CHECK_MEMORY = "sanitized" not in sys.argv[2:]
HERE = os.path.dirname(os.path.abspath(__file__))
MAX_KIB, MAX_SECONDS = 256 << 10, 10
STOP_AFTER = float(os.environ.get("STOP_AFTER", 0.2)) # more: a longer test

# "IT" stands for the image.
VERBS = """info IT|info --output=json IT|info --backing-chain IT
check IT|check --output=json IT|check -r all --plan IT
check -r all --plan --output=json IT|check -r leaks IT|check -r all IT
snapshot -l IT|snapshot -c new IT|snapshot -a 1 IT|snapshot -d 1 IT
snapshot load-state 1 state IT|resize IT +64K|amend -o lazy_refcounts=on IT
amend -o compat=0.10 IT|amend -o refcount_bits=64 IT
rebase -u -b other -F raw IT|bench -c 10 IT
create -f qcow2 -b IT -F qcow2 overlay"""
READ_ALL = """map IT|map --output=json IT|measure IT|measure -O qcow2 IT
convert -O raw IT copy|convert -O qcow2 -c IT copy|compare IT other|chain IT
chain --output=json IT|dd if=IT of=copy|commit overlay
rebase -b other -F raw IT|convert -O raw -l 1 IT copy"""


def words(text):
    return [line.split() for line in text.replace("\n", "|").split("|")]


def limit(seconds):
    # Of the processor; this timer goes on after exec.
    return lambda: signal.setitimer(signal.ITIMER_PROF, seconds)


most = [0, ""]


def run(argv, image, seconds, may_be_stopped):
    """Runs the tool; returns how much it printed."""
    what = f"{' '.join(argv)} with {image}"
    with open("out", "wb") as out:
        p = subprocess.Popen([TOOL] + argv, stdin=subprocess.DEVNULL,
                             stdout=out, stderr=out,
                             preexec_fn=limit(seconds))
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = status
    if os.WIFSIGNALED(status):
        assert may_be_stopped and os.WTERMSIG(status) == signal.SIGPROF, (
            what, status)
    if os.environ.get("VERBOSE"):
        print(what, usage.ru_maxrss, round(usage.ru_utime + usage.ru_stime, 2),
              flush=True)
    if CHECK_MEMORY:
        assert usage.ru_maxrss <= MAX_KIB, (what, usage.ru_maxrss)
        if usage.ru_maxrss > most[0]:
            most[:] = usage.ru_maxrss, what
    with open("out", "rb") as out:
        text = out.read(1 << 16)
    assert b"out of memory" not in text, (what, text)
    return os.stat("out").st_size


def header(name, size, back=b"", l1=(0, 0), bits=16, file_size=34 << 20):
    """A file with a header, refcounts, and for the rest holes."""
    c = 1 << bits
    ext = struct.pack(">II", 0xe2792aca, 5) + b"qcow2\0\0\0" if back else b""
    with open(name, "wb") as f:
        f.truncate(file_size)
        f.write(struct.pack(
            ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 200 if back else 0,
            len(back), bits, size, 0, l1[0], l1[1], c, 1, 0, 0, 0, 0, 0, 4,
            104) + ext + bytes(8))
        f.seek(200)
        f.write(back)
        f.seek(c)
        f.write(struct.pack(">Q", 2 * c))
        f.seek(2 * c)
        f.write(b"\0\1" * 700)


def chain_of_holes(nr):
    """Layers that each claim the largest L1 table, which is a hole."""
    os.mkdir("holes")
    for i in range(nr):
        header(f"holes/{i}", 1 << 30, b"%d" % (i - 1) if i else b"",
               (4 << 20, 1 << 20))
    return f"holes/{nr - 1}"


def chain_of_rows(nr):
    """Layers whose L1 table names one L2 table of nothing all over, so that
    each of very many slices is linear."""
    os.mkdir("rows")
    for i in range(nr):
        name = f"rows/{i}"
        header(name, 1 << 46, b"%d" % (i - 1) if i else b"",
               (1 << 17, 1 << 20))
        with open(name, "r+b") as f:
            f.seek(1 << 20)
            f.write(struct.pack(">Q", 8 << 20) * (1 << 17))
    return f"rows/{nr - 1}"


def chain_of_names(nr):
    """A deep chain, each of whose names is as long as may be and begins with
    the directory of the file that has it."""
    os.mkdir("names")
    os.mkdir("names/d")
    detour = b"d/../" * 200
    for i in range(nr):
        header(f"names/{i}", 1 << 20, detour + b"%d" % (i - 1) if i else b"",
               (1, 3 << 16), file_size=1 << 20)
    return f"names/{nr - 1}"


made = subprocess.run([sys.executable, HERE + "/costly-images.py"],
                      check=True, stdout=subprocess.PIPE).stdout.decode()
images = made.split()
header("other", 1 << 20, l1=(1, 3 << 16))
nr = 0
for image in images:
    for verbs, seconds, stopped in (VERBS, MAX_SECONDS, False), \
                                   (READ_ALL, STOP_AFTER, True):
        for verb in words(verbs):
            for name in "it", "overlay", "copy", "state":
                if os.path.exists(name):
                    os.unlink(name)
            subprocess.run(["cp", "--sparse=always", image, "it"], check=True)
            run([w.replace("IT", "it") for w in verb], image, seconds,
                stopped)
            nr += 1

for top in chain_of_holes(60), chain_of_rows(60), chain_of_names(300):
    for verb in words("info IT|info --backing-chain IT|"
                      "info --backing-chain --output=json IT"):
        run([w.replace("IT", top) for w in verb], top, MAX_SECONDS, False)
        nr += 1
    for verb in words(READ_ALL.split("commit")[0].rstrip("|")):
        if os.path.exists("copy"):
            os.unlink("copy")
        run([w.replace("IT", top) for w in verb], top, STOP_AFTER, True)
        nr += 1
    # What is shown of a directory grows with its files, not their square.
    directory = os.path.dirname(top)
    files = len(os.listdir(directory))
    for output in "human", "json":
        size = run(["chain", "--output=" + output, directory], top,
                   MAX_SECONDS, False)
        assert size < 4000 * files, (directory, output, size)
        nr += 1

print(f"{nr} commands on {len(images)} images, at most {most[0]} KiB: "
      f"{most[1]}")
assert nr > 300
