#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Somebody who has taken over the server reaches the files that it serves, and
# little else: Landlock and seccomp refuse it, but not what is needed, nor
# anything to the command of --run.

. ./functions.sh
requires qemu-img --version
requires nbdinfo --version
requires nbdcopy --version

nbdkit_qcow2 --dump-plugin >"$tmp/dump"
grep -qx qcow2_landlock=yes "$tmp/dump" || skip "this kernel has no Landlock"
grep -qx qcow2_seccomp=yes "$tmp/dump" || skip "this build has no seccomp"

# seccomp_of PID: 0, or 2 for a filter
seccomp_of ()
{
    sed -nE 's/^Seccomp:\s*//p' "/proc/$1/status"
}

# Sanitizers and gcov do at the end what is refused: there it is off.
if grep -q 'define IS_INSTRUMENTED' "$abs_top_builddir/config.h"; then
    cd "$tmp"
    qemu-img create -q -f qcow2 disk.qcow2 1M
    start_nbdkit "$tmp/socket" disk.qcow2
    [ "$(seccomp_of "$nbdkit_pid")" -eq 0 ] || fail "the server is restricted"
    exit 0
fi

build_filter "$srcdir/shell/intruder.c"
mkdir "$tmp/inside" "$tmp/outside" "$tmp/bases" "$tmp/temporary"
cd "$tmp/inside"
export TMPDIR="$tmp/temporary"

qemu-img create -q -f qcow2 ../bases/base.qcow2 1M
qemu-img create -q -f qcow2 -b ../bases/base.qcow2 -F qcow2 disk.qcow2
echo secret >../outside/secret
echo beside >beside
echo named >../outside/named

# tries WORDS [ARG...]
# What the intruder gets done in a server with these arguments, in "$tmp/log".
tries ()
{
    local what="$1"
    shift
    INTRUDER="$what" nbdkit_qcow2 --filter="$filter" \
        -U - "$@" --run 'nbdinfo --size "$uri"' 2>"$tmp/log" \
        || fail "the server failed: $(cat "$tmp/log")"
}

# gets TRY ERROR
gets ()
{
    grep -qxF -- "$1: $2" "$tmp/log" \
        || fail "not '$1: $2' but: $(cat "$tmp/log")"
}

all="read $tmp/outside/secret
read $tmp/inside/beside
read $tmp/inside
read $tmp/outside
read $tmp/bases/base.qcow2
read $tmp/outside/named
read /etc/passwd
read /proc/self/environ
write $tmp/outside/secret
write $tmp/outside/named
write $tmp/bases/base.qcow2
write $tmp/inside/disk.qcow2
create $tmp/inside/new
create $tmp/temporary/new
create $tmp/new
remove $tmp/inside/beside
chmod $tmp/inside/disk.qcow2
execute /bin/true
connect 9
signal $$
call unshare
call clone
call ptrace
call keyctl
call bpf
call io_uring_setup
call getpid"

tries "$all" disk.qcow2 allow=../bases
gets "read $tmp/outside/secret" EACCES
gets "read $tmp/outside" EACCES
gets "read $tmp/outside/named" EACCES
gets "read /etc/passwd" EACCES
gets "read /proc/self/environ" EACCES
gets "write $tmp/outside/secret" EACCES
gets "write $tmp/bases/base.qcow2" EACCES
gets "create $tmp/inside/new" EACCES
gets "create $tmp/new" EACCES
gets "remove $tmp/inside/beside" EACCES
gets "chmod $tmp/inside/disk.qcow2" EPERM
gets "execute /bin/true" EPERM
gets "connect 9" EPERM
# Since ABI 6.
if printf '%s\n' 6.12 "$(uname -r)" | sort -VC; then
    gets "signal $$" EPERM
fi
for call in unshare clone ptrace keyctl bpf io_uring_setup; do
    gets "call $call" EPERM
done
# It is the image's directory, and where filters keep temporary files.
gets "read $tmp/inside/beside" "done"
gets "read $tmp/bases/base.qcow2" "done"
gets "write $tmp/inside/disk.qcow2" "done"
gets "create $tmp/temporary/new" "done"
gets "call getpid" "done"
[ ! -e "$tmp/inside/new" ] && [ -e "$tmp/inside/beside" ] \
    || fail "files have changed"

# What the command line names may be read: --tls-psk=FILE, rate-file=FILE.
tries "$all" --filter=rate rate-file=../outside/named backing=none disk.qcow2
gets "read $tmp/outside/named" "done"
gets "write $tmp/outside/named" EACCES
gets "read $tmp/outside/secret" EACCES
gets "read $tmp/bases/base.qcow2" EACCES

# With NBD URIs the network is needed.
tries "$all" backing=none allow=nbd://localhost disk.qcow2
gets "connect 9" ECONNREFUSED
gets "read $tmp/outside/secret" EACCES

# The directory of dir= is the one that was there when the parameter was read,
# for the rules too.
mkdir "$tmp/served"
cp disk.qcow2 "$tmp/served/disk.qcow2"
ln -s outside "$tmp/link"
INTRUDER="read $tmp/link/disk.qcow2
write $tmp/link/disk.qcow2
read $tmp/outside/secret
write $tmp/outside/secret" INTRUDER_EXCHANGES="$tmp/served $tmp/link" \
nbdkit_qcow2 --filter="$filter" -U - dir="$tmp/served" allow=../bases \
    --run 'nbdinfo --size "nbd+unix:///disk.qcow2?socket=$unixsocket"' \
    2>"$tmp/log" || fail "the server failed: $(cat "$tmp/log")"
gets "read $tmp/link/disk.qcow2" "done"
gets "write $tmp/link/disk.qcow2" "done"
gets "read $tmp/outside/secret" EACCES
gets "write $tmp/outside/secret" EACCES

# And without the sandbox all of it works.
tries "read $tmp/outside/secret
connect 9
call unshare" sandbox=off allow=../bases disk.qcow2
gets "read $tmp/outside/secret" "done"
gets "connect 9" ECONNREFUSED

# The command of --run is not restricted. At its end the server may remove the
# directory of '-U -'; it has ended when nobody has the FIFO open any more.
mkfifo ../ended
exec 9<>../ended 8<../ended
nbdkit "$plugin" -U - sandbox=on backing=none disk.qcow2 --run '
    grep -qx "Seccomp:.0" /proc/self/status && cat ../outside/secret
    echo "$unixsocket" >../outside/socket' >../outside/out
exec 9<&-
cat <&8
exec 8<&-
grep -qx secret ../outside/out || fail "the command is restricted"
[ ! -e "$(cat ../outside/socket)" ] || fail "the socket is still there"

# Each thread of a server is restricted, in the background, too.
start_nbdkit "$tmp/socket" sandbox=on --filter=log --filter=cow \
             logfile="$tmp/requests" disk.qcow2 allow=../bases
head -c 1M /dev/urandom >data
nbdcopy data "$uri"
nbdinfo --size "$uri"
threads=0
for status in /proc/"$nbdkit_pid"/task/*/status; do
    # Threads of connections that were closed may end meanwhile.
    text="$(cat "$status" 2>/dev/null)" || continue
    grep -qx 'Seccomp:.2' <<<"$text" && grep -qx 'NoNewPrivs:.1' <<<"$text" \
        || fail "a thread is not restricted: $text"
    threads=$((threads + 1))
done
[ "$threads" -gt 0 ] || fail "the server has no threads"
stop_nbdkit
grep -q Write "$tmp/requests" || fail "the log filter does not log"
