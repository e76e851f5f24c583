#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Names that clients send, lists that they ask for, and connections that come
# and go take little memory, and leave none behind.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

mkdir "$tmp/images"
cd "$tmp/images"
for i in {1..8}; do
    qemu-img create -q -f qcow2 "$i.qcow2" 1M
    for name in a b c d e; do
        qemu-img snapshot -c "$name" "$i.qcow2"
    done
done

start_nbdkit "$tmp/socket" dir=.

# measure MEBIBYTES WHAT: runs the script on stdin, during which the server
# may grow by so much; by any amount with sanitizers, which keep what was
# freed.
measure ()
{
    local script limit="$1"
    script="$(cat)"
    [ -z "$sanitizer_runtime" ] || limit=4096
    nbd_client 1.qcow2 <<END
def peak():
    with open("/proc/$nbdkit_pid/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10

def options():
    c = nbd.NBD()
    c.set_opt_mode(True)
    c.connect_unix(os.environ["uri"].split("socket=")[1])
    return c

before = peak()
$script
grown = peak() - before
print(f"$2: {grown >> 20} MiB")
assert grown < $limit << 20, grown
END
}

measure 8 "names of 4,095 bytes" <<'END'
c = options()
for i in range(20):
    c.set_export_name("@" * 4095)
    fails(errno.ENOENT, c.opt_info)
c.opt_abort()
END

measure 8 "lists" <<'END'
for i in range(20):
    c = options()
    assert c.opt_list(lambda name, description: 0) == 48
    c.opt_abort()
END

measure 24 "connections" <<'END'
for i in range(200):
    c = connect(f"{1 + i % 8}.qcow2")
    c.pread(512, 0)
    c.shutdown()
END
