#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The command lines that programs have for qemu-img are good for qcow2-img as
# they are: command-lines-of-programs.txt has them. With DROP_IN=all qemu-img
# runs them, too, which proves that they are right.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires nbdkit memory --version
cd "$tmp"
mkdir made made/base made/vm made/out
ln -s "$abs_top_builddir/qcow2/tool/qcow2-img" qemu-img

(
    cd made
    echo secret >secret
    head -c 2097152 /dev/zero >vm/disk.raw
    qemu-img create -q -f qcow2 base/base.qcow2 2M
    fill base/base.qcow2 qcow2 "write -P 1 0 512k"
    qemu-img convert -O raw base/base.qcow2 base/base.raw
    fill vm/disk.raw raw "write -P 2 64k 512k"
    qemu-img create -q -f qcow2 vm/disk.qcow2 2M
    fill vm/disk.qcow2 qcow2 "write -P 3 0 256k"
    qemu-img convert -O raw vm/disk.qcow2 vm/disk.img
    qemu-img convert -O qcow2 vm/disk.qcow2 vm/copy.qcow2
    qemu-img snapshot -c snap1 vm/disk.qcow2
    qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 vm/mid.qcow2
    fill vm/mid.qcow2 qcow2 "write -P 4 128k 256k"
    qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 vm/top.qcow2
    fill vm/top.qcow2 qcow2 "write -P 5 1M 128k"
    qemu-img create -q -f qcow2 -b ../base/base.qcow2 -F qcow2 vm/overlay.qcow2
    fill vm/overlay.qcow2 qcow2 "write -P 6 0 64k"
    qemu-img create -q -f qcow2 -b ../base/base.raw -F raw vm/reraw.qcow2
    qemu-img create -q -f qcow2 -o compat=0.10 vm/old.qcow2 1M
    qemu-img create -q -f qcow2 vm/tracked.qcow2 2M
    qemu-img create -q -f qcow2 -b tracked.qcow2 -F qcow2 vm/tracktop.qcow2
    for image in tracked tracktop; do
        qemu-img bitmap --add "vm/$image.qcow2" bitmap0
        qemu-img bitmap --add "vm/$image.qcow2" one-1-1
    done
    qemu-img create -q -f qcow2 out/target.qcow2 2M
    qemu-img create -q -f raw out/target.raw 2M
)

nbd="$tmp/nbd"
nbdkit -f -U "$nbd" -P nbd.pid memory 2M &
server=$!
end_server ()
{
    kill "$server"
    wait "$server" || :
}
cleanup_fn end_server
for ((tries = 0; tries < 600; tries++)); do
    [ ! -s nbd.pid ] || break
    sleep 0.1
done
[ -s nbd.pid ] || fail "nbdkit did not start"

# try PROGRAM LINE: in a new directory; the status is in $status.
try ()
{
    local program="$1" words
    rm -rf "$dir"
    cp -r made "$dir"
    eval "words=($2)"
    status=0
    (cd "$dir" && "$program" "${words[@]}") >"$tmp/out" 2>"$tmp/err" \
        </dev/null || status=$?
}

dir="$tmp/work"
declare -A nr_lines
good=0 refused=0 bad=0
complain ()
{
    echo "$program: $line: $*"
    sed 's/^/    /' err
    bad=$((bad + 1))
}
while read -r program word line; do
    [[ "$program" =~ ^[a-z] ]] || continue
    nr_lines[$program]=$((${nr_lines[$program]:-0} + 1))
    unset QCOW2_ALLOW
    case "$word" in
        -) ;;
        allow|newer) export QCOW2_ALLOW="$dir" ;;
        *)
            try "$tmp/qemu-img" "$line"
            if [ "$status" -ne 1 ]; then
                complain "status $status, not 1"
            elif ! grep -qi -- "$word" err; then
                complain "the message does not name $word"
            fi
            refused=$((refused + 1))
            continue
            ;;
    esac
    if [ "$word" != newer ] && [ "${DROP_IN:-}" = all ]; then
        try qemu-img "$line"
        [ "$status" -eq 0 ] || complain "qemu-img itself: status $status"
    fi
    try qcow2_img "$line"
    [ "$status" -eq 0 ] || complain "status $status"
    good=$((good + 1))
done <"$srcdir/shell/command-lines-of-programs.txt"

for program in nova cinder libvirt proxmox packer cdi vdsm incus libguestfs \
               vagrant-libvirt opennebula coreos-assembler; do
    echo "$program: ${nr_lines[$program]} command lines"
done
echo "$good command lines to be done, $refused to be refused, $bad wrong"
[ "$bad" -eq 0 ] || fail "$bad command lines are not handled"
