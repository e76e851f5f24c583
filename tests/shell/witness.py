# SPDX-License-Identifier: BSD-3-Clause
# witness.py DIRECTORY...: sees what is done to the files in directories,
# because the kernel tells (inotify), and who connects to a socket that it
# makes in each but the first.
# For each line on its standard input it prints one line: all there was since
# the last one, as words EVENT:FILE.

import ctypes, os, socket, struct, sys

ACCESS, MODIFY, ATTRIB, OPEN = 1, 2, 4, 0x20
MOVED, CREATE, DELETE, ONLYDIR = 0xc0, 0x100, 0x200, 0x1000000
NAMES = {ACCESS: "read", MODIFY: "changed", ATTRIB: "changed", OPEN: "opened",
         0x40: "moved", 0x80: "moved", CREATE: "made", DELETE: "removed"}

libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
assert watch >= 0, os.strerror(ctypes.get_errno())
directories, sockets = {}, {}
for path in sys.argv[1:]:
    mask = OPEN | ACCESS | MODIFY | ATTRIB | MOVED | CREATE | DELETE | ONLYDIR
    if directories: # not in the first
        s = socket.socket(socket.AF_UNIX)
        s.bind(path + "/socket")
        s.listen()
        s.setblocking(False)
        sockets[path] = s
    descriptor = libc.inotify_add_watch(watch, os.fsencode(path), mask)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    directories[descriptor] = path

def seen():
    while True:
        try:
            data = os.read(watch, 1 << 16)
        except BlockingIOError:
            break
        while data:
            descriptor, mask, _, length = struct.unpack_from("iIII", data)
            name = data[16:16 + length].rstrip(b"\0").decode()
            data = data[16 + length:]
            for bit, word in NAMES.items():
                if mask & bit:
                    yield f"{word}:{directories[descriptor]}/{name}"
    for path, s in sockets.items():
        try:
            s.accept()[0].close()
            yield f"connected:{path}/socket"
        except BlockingIOError:
            pass

print("ready", flush=True)
for _ in sys.stdin:
    print(*sorted(set(seen())), flush=True)
