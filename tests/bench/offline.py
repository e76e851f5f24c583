# SPDX-License-Identifier: BSD-3-Clause
"""offline.py: whole-image operations of qcow2-img and qemu-img."""

import os
import resource
import subprocess
import time

from images import CLUSTER, run
from servers import Server, busy_seconds


class Offline:
    """One command on a new copy of an image; {img}, {out}, {base} and {uri}
    stand for the files."""

    unit = "s"
    less_is_better = True

    def __init__(self, name, command, prepare, verify=None):
        self.name, self.command = name, command
        self.prepare, self.verify = prepare, verify

    def measure(self, tool, images, first):
        """Returns seconds, CPU seconds, and what else ran meanwhile."""
        names = self.prepare(images)
        delayed = names.pop("delayed", None)
        server = delay_server(images, delayed) if delayed else None
        try:
            if server:
                names["uri"] = server.uri()
            command = [w.format(**names) for w in self.command.split()]
            cpu, busy = children_cpu(), busy_seconds()
            start = time.monotonic()
            subprocess.run([tool] + command, check=True,
                           stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL)
            seconds = time.monotonic() - start
            cpu, busy = children_cpu() - cpu, busy_seconds() - busy
        finally:
            if server:
                server.stop()
        if first and self.verify:
            self.verify(images, names)
        return seconds, cpu, busy - cpu


def children_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def delay_server(images, path):
    """An image over a network: 20 ms to the first byte of each answer."""
    socket = images.path("delay.sock")
    return Server(["nbdkit", "-f", "-r", "-U", socket, "--filter=delay",
                   "file", path, "rdelay=20ms"], [socket])


def settle():
    os.sync()


def new_copy(images, source):
    path = images.path("offline.qcow2")
    if os.path.exists(path):
        os.unlink(path)
    images.copy(source, path)
    out = images.path("offline.out")
    if os.path.exists(out):
        os.unlink(out)
    settle()
    return {"img": path, "out": out}


def mapped(images):
    return new_copy(images, images.mapped(64))


def with_snapshot(images):
    names = mapped(images)
    run("qemu-img", "snapshot", "-c", "s", names["img"])
    settle()
    return names


def checked(images, names):
    run("qemu-img", "check", "-q", names["img"])


def changed_overlay(images):
    """An overlay that holds a third of the disk, on a copy of the base."""
    names = new_copy(images, images.full())
    base = names["base"] = images.path("offline-base.qcow2")
    other = names["other"] = images.path("offline-other.qcow2")
    images.copy(images.full(), base)
    images.copy(images.full(), other)
    os.unlink(names["img"])
    images.overlay(names["img"], base)
    images.write_clusters(
        names["img"], range(0, images.size // CLUSTER, 3), 7)
    settle()
    return names


def committed(images, names):
    run("qemu-img", "check", "-q", names["base"])
    if run("qemu-io", "-r", "-c", f"read -P 7 0 {CLUSTER}", "-c",
           f"read -P 7 {3 * CLUSTER} {CLUSTER}",
           names["base"]).count(b"verification failed"):
        raise RuntimeError("the base lacks what was committed")


def source(kind):
    def prepare(images):
        names = new_copy(images, images.full())
        names["img"] = images.full(kind) if kind in ("raw", "qcow2") \
            else images.compressed(kind)
        return names
    return prepare


def over_the_net(images):
    names = new_copy(images, images.full())
    names["delayed"] = images.compressed("zlib")
    return names


def converted(images, names):
    run("qemu-img", "compare", "-q", images.full("raw"), names["out"])


def all_offline():
    return [
        Offline("snapshot create, 64 GiB", "snapshot -c t {img}", mapped,
                checked),
        Offline("snapshot apply, 64 GiB", "snapshot -a s {img}",
                with_snapshot, checked),
        Offline("snapshot delete, 64 GiB", "snapshot -d s {img}",
                with_snapshot, checked),
        Offline("check, 64 GiB", "check {img}", mapped),
        Offline("commit", "commit -q {img}", changed_overlay, committed),
        Offline("rebase", "rebase -F qcow2 -b {other} {img}",
                changed_overlay, checked),
        Offline("convert to raw", "convert -f qcow2 -O raw {img} {out}",
                source("qcow2"), converted),
        Offline("convert from raw", "convert -f raw -O qcow2 {img} {out}",
                source("raw"), converted),
        Offline("convert from zlib", "convert -f qcow2 -O raw {img} {out}",
                source("zlib"), converted),
        Offline("convert -c, zlib", "convert -c -f raw -O qcow2 {img} {out}",
                source("raw"), converted),
        Offline("convert -c, zstd", "convert -c -f raw -O qcow2 -o "
                "compression_type=zstd {img} {out}", source("raw"),
                converted),
        Offline("convert zlib over NBD, 20 ms",
                "convert -f qcow2 -O raw {uri} {out}", over_the_net,
                converted),
    ]
