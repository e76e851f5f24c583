# SPDX-License-Identifier: BSD-3-Clause
"""servers.py: the NBD servers that are compared, and what they consume."""

import os
import shutil
import signal
import subprocess
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_of(pid):
    """User and system seconds of a process."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def busy_seconds():
    """What all cores did since the start, stolen time included."""
    with open("/proc/stat") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK


class Server:
    """One process that serves one image, or (dir=) several."""

    def __init__(self, command, sockets):
        self.sockets = sockets
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        while not all(os.path.exists(s) for s in sockets):
            if self.process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: "
                                   + self.process.stderr.read())
            time.sleep(0.002)

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.sockets[0]}"

    def cpu(self):
        return cpu_of(self.process.pid)

    def peak_mib(self):
        return self._field("status", "VmHWM") / 1024

    def pss_mib(self):
        return self._field("smaps_rollup", "Pss") / 1024

    def _field(self, file, name):
        with open(f"/proc/{self.process.pid}/{file}") as f:
            for line in f:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
        raise RuntimeError(f"{file} has no {name}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait()
        errors = self.process.stderr.read()
        for s in self.sockets:
            if os.path.exists(s):
                os.unlink(s)
        if status not in (0, -signal.SIGTERM):
            raise RuntimeError(f"the server ended with {status}: {errors}")


class Contender:
    """A kind of server: what it is called, what images it takes."""

    def __init__(self, name, image_kind, programs, command):
        self.name = name
        self.image_kind = image_kind
        self.missing = [p for p in programs if not shutil.which(p)]
        self._command = command

    def serve(self, image, socket, readonly=False):
        if os.path.exists(socket):
            os.unlink(socket)
        return Server(self._command(image, socket, readonly), [socket])


def contenders(plugin):
    def raw(image, socket, readonly):
        return (["nbdkit", "-f", "-U", socket] + ["-r"] * readonly
                + ["file", image])

    def qemu(image, socket, readonly):
        return (["qemu-nbd", "-f", "qcow2", "-k", socket, "-t", "-e", "32",
                 "--cache=writeback", "--aio=io_uring", "--discard=unmap"]
                + ["-r"] * readonly + [image])

    def ours(image, socket, readonly):
        return (["nbdkit", "-f", "-U", socket] + ["-r"] * readonly
                + [plugin, image])

    return [Contender("raw file", "raw", ["nbdkit"], raw),
            Contender("qemu-nbd", "qcow2", ["qemu-nbd"], qemu),
            Contender("nbdkit-qcow2", "qcow2", ["nbdkit"], ours)]
