#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Signals to qcow2-img: SIGUSR1 shows the progress, SIGINT cancels and leaves
# valid images.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"

head -c 8M /dev/urandom >source.raw
qemu-img create -q -f qcow2 base.qcow2 8M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
qemu-io -f qcow2 -c "write -s source.raw 0 8M" overlay.qcow2 >/dev/null

# start COMMAND...: slow enough for a signal, and begun when it returns.
start ()
{
    rm -f out err
    # The shell has INT ignored in the background, and nohup HUP.
    env --default-signal=INT,HUP "$tool" "$@" >out 2>err &
    job=$!
    cleanup_fn end
    for ((tries = 0; tries < 600; tries++)); do
        [ ! -s out ] || return 0
        kill -0 "$job" || fail "'$*' ended early: $(cat err)"
        sleep 0.1
    done
    fail "'$*' shows no progress"
}

end ()
{
    [ -n "$job" ] || return 0
    kill -9 "$job" 2>/dev/null || :
    wait "$job" || :
    job=
}

# interrupt SIGNAL
interrupt ()
{
    local status=0
    kill -s "$1" "$job"
    wait "$job" || status=$?
    job=
    [ "$status" -eq "$((128 + $(kill -l "$1")))" ] \
        || fail "it ended with status $status"
    expect_output 'interrupted' cat err
}

start convert -p -r 100k -f raw -O qcow2 source.raw target.qcow2
interrupt INT
[ ! -e target.qcow2 ] || fail "an unfinished target was left"

# What is ignored stays ignored.
start convert -p -r 100k -f raw -O qcow2 source.raw target.qcow2
(trap '' HUP; exec "$tool" convert -p -r 10M -f raw -O raw source.raw nohup.raw \
    >nohup.out) &
nohup=$!
while [ ! -s nohup.out ]; do
    sleep 0.1
done
kill -s HUP "$nohup"
wait "$nohup" || fail "it did not ignore SIGHUP"
interrupt HUP

start commit -p -r 100k overlay.qcow2
kill -s USR1 "$job"
kill -s USR1 "$job"
interrupt TERM
check_image overlay.qcow2
check_image base.qcow2
qemu-img compare overlay.qcow2 source.raw
"$tool" commit -q overlay.qcow2
qemu-img compare base.qcow2 source.raw

# Without -p the answer to SIGUSR1 is on stderr.
rm -f out err target.qcow2
"$tool" convert -r 2M -f raw -O qcow2 source.raw target.qcow2 >out 2>err &
job=$!
cleanup_fn end
while [ ! -e target.qcow2 ]; do
    sleep 0.1
done
while [ ! -s err ] && kill -s USR1 "$job" 2>/dev/null; do
    sleep 0.1
done
end
expect_output '^    \([0-9]+\.[0-9][0-9]/100%\)$' cat err
[ ! -s out ] || fail "progress without -p"
