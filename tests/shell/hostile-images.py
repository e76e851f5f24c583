# SPDX-License-Identifier: BSD-3-Clause
# hostile-images.py INSIDE OUTSIDE: makes images in the directory INSIDE, each
# named for how it tries to reach files in OUTSIDE; prints a line for each: its
# name, and what a refusal has to say ('-': it is to be served).

import os, struct, sys

INSIDE, OUTSIDE = map(os.path.realpath, sys.argv[1:])
C = 4096 # cluster size
BACKING_FORMAT, DATA_FILE, CRYPT = 0xe2792aca, 0x44415441, 0x0537be77

def image(name, backing=b"", form=b"raw", version=3, incompatible=0,
          autoclear=0, crypt=0, extensions=(), directory=INSIDE):
    """Two clusters of a disk: the first is the backing file's."""
    backing, form = os.fsencode(backing), os.fsencode(form)
    extensions = list(extensions)
    if backing and form:
        extensions.append((BACKING_FORMAT, form))
    tail = b""
    for kind, text in extensions + [(0, b"")]:
        text = os.fsencode(text)
        tail += struct.pack(">II", kind, len(text))
        tail += text + bytes(-len(text) % 8)
    length = 104 if version == 3 else 72
    place = length + len(tail) if backing else 0
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, place,
                       len(backing), C.bit_length() - 1, 2 * C, crypt, 1,
                       3 * C, C, 1, 0, 0)
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, autoclear, 4, length)
    clusters = [
        head + tail + backing,
        struct.pack(">Q", 2 * C),               # refcount table
        struct.pack(">6H", *[1] * 6),           # refcounts
        struct.pack(">Q", 1 << 63 | 4 * C),     # L1
        struct.pack(">QQ", 0, 1 << 63 | 5 * C), # L2
        b"mine" * (C // 4),
    ]
    with open(os.path.join(directory, name), "wb") as f:
        for cluster in clusters:
            assert len(cluster) <= C
            f.write(cluster.ljust(C, b"\0"))

def image_1(name, backing):
    """The same in version 1."""
    backing = os.fsencode(backing)
    l1 = 48 + -(-len(backing) // 8) * 8
    l2 = l1 + 8
    head = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 48, len(backing), 0,
                       2 * C, 12, 6, 0, 0, l1)
    with open(os.path.join(INSIDE, name), "wb") as f:
        f.write(head + backing.ljust(l1 - 48, b"\0") + struct.pack(">QQQ", l2,
                0, C) + bytes(512))
        f.seek(C)
        f.write(b"mine" * (C // 4))

def case(name, says, *args, **more):
    image(name, *args, **more)
    print(name, says)

raw, qcow2 = OUTSIDE + "/secret.raw", OUTSIDE + "/secret.qcow2"
with open(raw, "wb") as f:
    f.write(b"SECRET" * 2000)
image("secret.qcow2", directory=OUTSIDE)
with open(qcow2, "r+b") as f:
    f.seek(5 * C)
    f.write(b"SECRET" * 600)
# What stands beside the images, for names that begin there.
with open(INSIDE + "/beside.raw", "wb") as f:
    f.write(b"beside" * 2000)
os.symlink("../outside/secret.raw", INSIDE + "/link")
os.symlink("../outside", INSIDE + "/directory")
os.mkfifo(INSIDE + "/pipe")
image("between.qcow2", raw)
os.mkdir(INSIDE + "/below")

outside = "lies.outside"
case("absolute", outside, raw)
case("absolute-qcow2", outside, qcow2, "qcow2")
case("undeclared-format", outside, qcow2, "")
case("version-2", outside, raw, version=2)
case("relative", outside, "../outside/secret.raw")
case("by-way-of-below", outside, "below/../../outside/secret.raw")
case("symbolic-link", outside, "link")
case("symbolic-link-to-directory", outside, "directory/secret.raw")
case("layer-between", outside, "between.qcow2", "qcow2")
case("nul-byte", "zero.byte", b"beside.raw\0/../../outside/secret.raw")

plain = "only.plain.paths"
case("json-file", plain, 'json:{"driver":"file","filename":"%s"}' % raw)
case("json-nbd", plain, 'json:{"driver":"nbd","server":{"type":"unix",'
     '"path":"%s/socket"}}' % OUTSIDE)
case("json-many", plain, 'json:{"driver":"quorum","vote-threshold":1,'
     '"children":[%s]}' % ",".join(['"%s"' % raw] * 9))
case("file-protocol", plain, "file:" + raw)
case("file-uri", plain, "file://" + raw)
case("nbd-protocol", plain, "nbd:unix:%s/socket" % OUTSIDE)
case("nbd-uri", "not.a.local.file", "nbd+unix:///?socket=%s/socket" % OUTSIDE)
case("fat-directory", plain, "fat:rw:" + OUTSIDE)
case("host-device", plain, "host_device:/dev/zero")

kind = "neither.a.regular.file"
case("pipe-beside", kind, "pipe")
case("terminal", kind, "/dev/tty")
case("device", kind, "/dev/zero")
case("standard-input", "denied|neither|lies.outside|No.such",
     "/proc/self/fd/0")
case("directory-itself", kind, ".")
case("not-there", "No.such.file", OUTSIDE + "/none")

# What names a file in other ways.
case("data-file", "data.file", incompatible=4, extensions=[(DATA_FILE, raw)])
case("data-file-raw", "data.file", incompatible=4, autoclear=2,
     extensions=[(DATA_FILE, raw)])
case("data-file-json", "data.file", incompatible=4,
     extensions=[(DATA_FILE, 'json:{"driver":"file","filename":"%s"}' % raw)])
case("data-file-relative", "data.file", incompatible=4,
     extensions=[(DATA_FILE, "../outside/secret.raw")])
case("data-file-beside", "-", incompatible=4,
     extensions=[(DATA_FILE, "beside.raw")])
case("data-file-without-a-name", "data.file", incompatible=4)
case("data-file-without-its-bit", "-", extensions=[(DATA_FILE, raw)])
case("encryption-aes", "encrypt", crypt=1)
case("encryption-luks", "encrypt", crypt=2,
     extensions=[(CRYPT, struct.pack(">QQ", 0xffffffffffff0000, 1 << 62))])
case("encryption-luks-without-a-header", "encrypt", crypt=2)
case("extended-l2", "extended.L2", incompatible=16)
case("harmless", "-", "beside.raw")
for name, backing in (("absolute", raw), ("link", "link"),
                      ("relative", "../outside/secret.raw")):
    image_1("version-1-" + name, backing)
    print("version-1-" + name, "lies.outside|read,.but.not.written|checks")
