#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# With dir= the files of a directory are exports: which names there are,
# which there are not, and that one bad file does not hide the others.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires nbdinfo --version
requires qemu-img --version

mkdir -p "$tmp/images/below"
cd "$tmp/images"

# new FILE BYTE: a qcow2 image full of that byte.
new ()
{
    qemu-img create -q -f qcow2 "$1" 64k
    qemu-io -f qcow2 -c "write -P $2 0 64k" "$1" >/dev/null
}
new disk.qcow2 1
qemu-img snapshot -c snap disk.qcow2
qemu-img snapshot -c shadowed disk.qcow2
qemu-img snapshot -c a@b disk.qcow2
new disk.qcow2@shadowed 2
new noname 3
new below/inside.qcow2 4
new 'sp ace?&.qcow2' 5
new qcow2.raw 6 # a raw disk into which a guest wrote a qcow2 image
new .hidden 7
new ../outside.qcow2 8
printf '%65536s' r >plain
printf '%65536s' s >other.raw
echo 'not an image' >bad.qcow2
ln -s below/inside.qcow2 link
ln -s disk.qcow2 link.raw # stands for a qcow2 image
ln -s ../outside.qcow2 escape
ln -s /dev/zero device
ln -s nowhere dangling
mkfifo pipe

start_nbdkit "$tmp/socket" dir=. 2>../log
nbd_client disk.qcow2 <<END
for name, byte in (("disk.qcow2", 1), ("disk.qcow2@snap", 1),
                   ("disk.qcow2@1", 1), ("disk.qcow2@a@b", 1),
                   ("disk.qcow2@shadowed", 2), ("noname", 3), ("link", 4),
                   ("link.raw", 1),
                   ("sp ace?&.qcow2", 5), ("plain", ord("r")),
                   ("other.raw", ord("s"))):
    c = connect(name)
    data = c.pread(65536, 0)
    assert data[-1] == byte, name
    assert c.is_read_only() == (name in ("disk.qcow2@snap", "disk.qcow2@1",
                                         "disk.qcow2@a@b")), name
assert connect("qcow2.raw").pread(4, 0) == b"QFI\xfb"
for name in ("", ".", "..", "/", "below", "below/inside.qcow2", ".hidden",
             "../outside.qcow2", "../images/disk.qcow2", "./disk.qcow2",
             "escape", "device", "dangling", "pipe", "nothing", "bad.qcow2",
             "disk.qcow2@none", "disk.qcow2/", "@snap", "disk.qcow2@",
             "x" * 300, "@" * 4096, "plain@snap"):
    fails(errno.ENOENT, connect, name)
    # It does no harm.
    assert connect("plain").pread(1, 65535) == b"r"
END
nbdinfo --list "$uri" | sed -n 's/^export="\(.*\)":$/\1/p' >list
stop_nbdkit

# says PATTERN: in the log
says ()
{
    grep -Eq -- "error: $1" ../log || fail "no '$1' in: $(cat ../log)"
}
says 'there is no default export with dir=: name a file$'
says "no export 'escape': .*link that leads out of dir="
says "no export 'dangling': .*link that leads to nothing$"
says "no export 'nothing': there are FILE"

cat >expected <<END
disk.qcow2
disk.qcow2@snap
disk.qcow2@a@b
disk.qcow2@shadowed
link
link.raw
link.raw@snap
link.raw@shadowed
link.raw@a@b
noname
other.raw
plain
qcow2.raw
sp ace?&.qcow2
END
diff <(sort expected) <(grep -vx 'expected\|list' list | sort)

# A link into a directory of another's gives the image there nothing of the
# directory that the link is in, nor of any other.
mkdir -p "$tmp/shared/tenant"
cd "$tmp/shared"
printf '%65536s' S >secret.raw
printf '%65536s' o >tenant/own.raw
for name in secret.raw "$tmp/shared/secret.raw" ../secret.raw; do
    qemu-img create -q -u -f qcow2 -b "$name" -F raw tenant/disk.qcow2 64k
    ln -sf tenant/disk.qcow2 export.qcow2
    for option in "file=export.qcow2" "dir=."; do
        export=""
        [ "$option" != dir=. ] || export=export.qcow2
        nbdkit_qcow2 -r -U - $option \
            --run "nbdcopy \"nbd+unix:///$export?socket=\$unixsocket\" - >out" \
            2>../err \
            && fail "$option serves $name"
        grep -Eq 'refused|No such file' ../err || fail "$(cat ../err)"
    done
done
qemu-img create -q -u -f qcow2 -b "$tmp/shared/tenant/own.raw" -F raw \
         tenant/disk.qcow2 64k
start_nbdkit "$tmp/socket" dir=.
nbd_client export.qcow2 <<END
assert connect("export.qcow2").pread(1, 65535) == b"o"
END
stop_nbdkit

# A data file is written as the image says that names it: not in a directory
# where it may be anybody's.
mkdir "$tmp/data"
cd "$tmp/data"
printf '%65536s' v >vic.raw
cp vic.raw before.raw
qcow2_img create -q -f qcow2 -o data_file=new.raw,data_file_raw=on disk.qcow2 \
    64k
python3 - <<'END'
with open("disk.qcow2", "r+b") as f:
    b = f.read(4096)
    assert b.count(b"new.raw") == 1
    at = b.index(b"new.raw")
    f.seek(at)
    f.write(b"vic.raw")
END
qemu-img create -q -f qcow2 plain.qcow2 64k
start_nbdkit "$tmp/socket" dir=.
nbd_client disk.qcow2 <<END
assert h.is_read_only()
assert h.pread(1, 65535) == b"v"
assert not connect("plain.qcow2").is_read_only()
END
stop_nbdkit
cmp vic.raw before.raw
start_nbdkit "$tmp/socket" dir=. allow="$tmp/data"
nbd_client disk.qcow2 <<END
h.pwrite(b"w", 0)
END
stop_nbdkit
cmp -s vic.raw before.raw && fail "allow= does not allow it"
true
