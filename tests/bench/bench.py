#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench.py: this project next to QEMU and to the raw file, in one run.

Each round measures every contender once, so that what the machine does
meanwhile meets all of them; a cell is the median of the rounds. A ratio is
always "how many times better": above 1 ours is better, also for seconds and
memory. The first round proves that what was read and written is right.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time

import plot
import report
from images import Images
from offline import all_offline
from servers import Server, busy_seconds, contenders
from workloads import Clones, all_workloads

SHORT = {"raw file": "raw", "qemu-nbd": "qemu", "nbdkit-qcow2": "ours"}


def own_cpu():
    return sum(u.ru_utime + u.ru_stime for u in
               (resource.getrusage(resource.RUSAGE_SELF),
                resource.getrusage(resource.RUSAGE_CHILDREN)))


class Many:
    """Servers of clones: one of ours, or a qemu-nbd for each."""

    def __init__(self, contender, directory, nr, images, plugin):
        self.uris, self.servers = [], []
        for i in range(nr):
            if contender.image_kind == "qcow2" and SHORT[contender.name] \
                    == "ours":
                if not self.servers:
                    socket = images.path("clones.sock")
                    self.servers.append(Server(
                        ["nbdkit", "-f", "-U", socket, plugin,
                         "dir=" + directory], [socket]))
                self.uris.append(self.servers[0].uri(f"{i}.qcow2"))
            else:
                self.servers.append(contender.serve(
                    os.path.join(directory, f"{i}.qcow2"),
                    images.path(f"clone{i}.sock")))
                self.uris.append(self.servers[-1].uri())

    def cpu(self):
        return sum(s.cpu() for s in self.servers)

    def pss_mib(self):
        return sum(s.pss_mib() for s in self.servers)

    def stop(self):
        for s in self.servers:
            s.stop()


class Bench:
    def __init__(self, args, images):
        self.args, self.images = args, images
        self.contenders = [c for c in contenders(args.plugin)
                           if not self._lacks(c)]
        self.tools = {"qemu": "qemu-img", "ours": args.tool}

    @staticmethod
    def _lacks(contender):
        if contender.missing:
            print(f"bench: {contender.name} is left out: "
                  f"{', '.join(contender.missing)} not found",
                  file=sys.stderr)
        return bool(contender.missing)

    def serve(self, workload, contender, path):
        if isinstance(workload, Clones):
            return Many(contender, path, workload.nr, self.images,
                        self.args.plugin)
        return contender.serve(path, self.images.path("bench.sock"),
                               workload.readonly)

    def once(self, row, workload, contender, first):
        images, kind = self.images, contender.image_kind
        path = workload.image(images, kind)
        if path is None:
            return
        os.sync()
        server = self.serve(workload, contender, path)
        try:
            cpu, busy, own = server.cpu(), busy_seconds(), own_cpu()
            start = time.monotonic()
            result = workload.act(server, images)
            seconds = time.monotonic() - start
            cpu = server.cpu() - cpu
            others = busy_seconds() - busy - cpu - (own_cpu() - own)
            if first:
                workload.prove_reads(server, images)
        finally:
            server.stop()
        if first:
            workload.prove_writes(images, kind, path, result)
        who = SHORT[contender.name]
        row["values"].setdefault(who, []).append(result.value)
        row["cpu"].setdefault(who, []).append(
            cpu / (result.operations or 1))
        row["foreign"] = max(row["foreign"], others / seconds)

    def workload(self, workload):
        row = {"name": workload.name, "unit": workload.unit,
               "less_is_better": workload.less_is_better, "values": {},
               "cpu": {}, "foreign": 0, "per_operation": True}
        for i in range(self.args.runs):
            for contender in self.contenders:
                self.once(row, workload, contender, i == 0)
        return row

    def offline(self, operation):
        row = {"name": operation.name, "unit": operation.unit,
               "less_is_better": True, "values": {}, "cpu": {},
               "foreign": 0, "per_operation": False}
        for i in range(self.args.runs):
            for who, tool in self.tools.items():
                seconds, cpu, others = operation.measure(
                    tool, self.images, i == 0)
                row["values"].setdefault(who, []).append(seconds)
                row["cpu"].setdefault(who, []).append(cpu)
                row["foreign"] = max(row["foreign"], others / seconds)
        return row

    def rows(self):
        for one in all_workloads(self.args.quick) + all_offline():
            if self.args.only and not any(
                    word in one.name for word in self.args.only.split(",")):
                continue
            measure = self.offline if hasattr(one, "measure") \
                else self.workload
            print(f"{one.name} ...", file=sys.stderr)
            yield measure(one)


def machine(args, size):
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f
                    if line.startswith("model name")), "unknown CPU")
    return (f"{os.cpu_count()} cores ({cpu}), Linux {platform.release()}, "
            f"{file_system(args.dir)}; disks of {size >> 20} MiB, "
            f"{args.runs} round{'s' * (args.runs > 1)}.")


def file_system(path):
    best = ("", "?")
    with open("/proc/mounts") as f:
        for line in f:
            point, kind = line.split()[1:3]
            if os.path.realpath(path).startswith(point) \
                    and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def load(path):
    with open(path) as f:
        return json.load(f)


def refresh(args):
    """Writes down what was measured; measures nothing."""
    result, other = load(args.json), load(args.tmpfs or args.json)
    report.refresh_readme(args.readme, result, other)
    with open(os.path.join(os.path.dirname(__file__), "performance.svg"),
              "w") as f:
        f.write(plot.plot(result["rows"], other["rows"]))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--plugin", help="nbdkit-qcow2-plugin.so")
    p.add_argument("--tool", help="qcow2-img")
    p.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"),
                   help="where images go: a disk, or /dev/shm")
    p.add_argument("--runs", type=int, help="rounds: 3, or 1 with --quick")
    p.add_argument("--quick", action="store_true", help="small disks")
    p.add_argument("--only", help="rows with one of these words in their "
                   "names, separated by commas")
    p.add_argument("--json", help="write the figures to this file")
    p.add_argument("--readme", help="put the table of the figures in --json "
                   "into this README, and the plot beside bench.py; measure "
                   "nothing")
    p.add_argument("--tmpfs", help="with --readme: figures measured on tmpfs, "
                   "whose ratios stand beside those of --json")
    args = p.parse_args()
    if args.readme:
        refresh(args)
        return 0
    if not args.plugin or not args.tool:
        p.error("--plugin and --tool are needed ('make bench' gives them)")
    missing = [t for t in ("fio", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io")
               if not shutil.which(t)]
    if missing:
        sys.exit(f"bench: {', '.join(missing)} not found; on Debian: fio, "
                 "libnbd-bin, qemu-utils")
    args.runs = args.runs or (1 if args.quick else 3)
    size = (128 if args.quick else 512) << 20
    with tempfile.TemporaryDirectory(prefix="bench.", dir=args.dir) as d:
        rows = list(Bench(args, Images(d, size)).linear())
    result = {"machine": machine(args, size), "rows": rows}
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    print(result["machine"] + "\n\n" + report.table(rows) + "\n"
          + report.cpu_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
