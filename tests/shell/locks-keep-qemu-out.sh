#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# While we have an image open, QEMU cannot do what would damage it; while
# QEMU has it open, we cannot. Whoever is refused learns by whom, and lock=off
# does without.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires qemu-io --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2

# hold FILE [OPTION...]: qemu-io has it open until 'release'. $holder is its
# process.
hold ()
{
    mkfifo in out
    qemu-io -f qcow2 "${@:2}" "$1" <in >out 2>&1 &
    holder=$!
    exec 7>in 8<out
    echo length >&7
    # The answer comes when the image is open.
    until read -r -t 60 line <&8 && [[ "$line" =~ MiB ]]; do :; done
}
release ()
{
    exec 7>&- 8<&-
    wait "$holder"
    rm in out
}

# serve_fails PATTERN ARG...: nbdkit does not start, and says why.
serve_fails ()
{
    local status=0
    nbdkit_qcow2 -U - "${@:2}" --run true 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] || fail "exit status $status"
    grep -Eq "$1" err || fail "no '$1' in what it says"
}

# A writer in QEMU: we neither write nor read, and know who it is.
hold disk.qcow2
serve_fails "disk.qcow2.*$holder" disk.qcow2
serve_fails "disk.qcow2.*$holder" -r disk.qcow2
serve_fails "lock=off|disk.qcow2" disk.qcow2 lock=on
nbdkit_qcow2 -r -U - disk.qcow2 lock=off --run 'qemu-img info "$uri"'
release
hold base.qcow2
serve_fails "base.qcow2.*$holder" disk.qcow2
release

# A reader in QEMU: we read, but cannot write, which shows when a client
# comes that could.
hold disk.qcow2 -r
nbdkit_qcow2 -r -U - disk.qcow2 --run 'qemu-img info "$uri"'
start_nbdkit "$tmp/socket" disk.qcow2 sandbox=off 2>log
expect_failure nbd_client <<<''
stop_nbdkit
cat log
grep -q "disk.qcow2.*$holder" log
# In the sandbox it does not see other processes.
start_nbdkit "$tmp/socket" disk.qcow2 2>log
expect_failure nbd_client <<<''
stop_nbdkit
cat log
grep -Eq "disk.qcow2.*($holder|another process)" log
release

# We write.
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
run = lambda command: os.system(command + " >/dev/null 2>&1")
assert not h.is_read_only()
assert run("qemu-io -c 'write 0 512' disk.qcow2") != 0
assert run("qemu-io -r -c 'read 0 512' disk.qcow2") != 0
assert run("qemu-img snapshot -c x disk.qcow2") != 0
assert run("qemu-io -c 'write 0 512' base.qcow2") != 0
assert run("qemu-io -r -c 'read 0 512' base.qcow2") == 0
assert run("qemu-img info -U disk.qcow2") == 0
END
stop_nbdkit
qemu-io -c 'write 0 512' disk.qcow2

# We read.
start_nbdkit "$tmp/socket" -r disk.qcow2
nbd_client <<END
run = lambda command: os.system(command + " >/dev/null 2>&1")
assert h.is_read_only()
assert run("qemu-io -c 'write 0 512' disk.qcow2") != 0
assert run("qemu-io -c 'write 0 512' base.qcow2") != 0
assert run("qemu-io -r -c 'read 0 512' disk.qcow2") == 0
END
stop_nbdkit

# Nobody is connected: nothing is locked.
start_nbdkit "$tmp/socket" disk.qcow2
qemu-io -c 'write 0 512' disk.qcow2
stop_nbdkit

# Two of our own servers, one of them with a client.
start_nbdkit "$tmp/socket" disk.qcow2
hold_client <<<''
serve_fails "disk.qcow2.*nbdkit.*$nbdkit_pid" disk.qcow2
release_client
