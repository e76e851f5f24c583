#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A virtual machine that QEMU saved with savevm still loads after we made,
# applied and deleted other snapshots, committed an overlay into the image,
# and amended it. The machine runs its firmware alone, under TCG.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires qemu-system-x86_64 --version
cd "$tmp"

# machine IMAGE [ARG...]
# Runs the machine, stopped, through monitor commands on stdin.
machine ()
{
    local image="$1"
    shift
    timeout 120 qemu-system-x86_64 -accel tcg -M pc -m 16 -nodefaults \
        -display none -S -monitor stdio \
        -drive "file=$image,format=qcow2,if=ide" "$@"
}

# vm IMAGE MONITOR-COMMAND...
# Prints what the machine said.
vm ()
{
    printf '%s\n' "${@:2}" quit | machine "$1" 2>&1
}

# expect_loads IMAGE SNAPSHOT
expect_loads ()
{
    machine "$1" -loadvm "$2" <<<quit >out 2>&1 \
        || fail "$2 does not load: $(cat out)"
    vm "$1" "loadvm $2" "info status" >out
    cat out
    ! grep -iq error out || fail "$2 does not load"
    check_image "$1"
}

qemu-img create -q -f qcow2 vm.qcow2 16M
fill vm.qcow2 qcow2 "write -P 1 0 2M"
vm vm.qcow2 "savevm saved" >out
! grep -iq error out || fail "savevm failed: $(cat out)"
expect_output '^1 +saved +[1-9]' qcow2_img snapshot -l vm.qcow2
qcow2_img snapshot load-state saved state.before vm.qcow2
expect_loads vm.qcow2 saved
expect_output "[Ee]rror.*nothing" vm vm.qcow2 "loadvm nothing"

# Other snapshots come and go around it.
qcow2_img snapshot -c other vm.qcow2
expect_loads vm.qcow2 saved
fill vm.qcow2 qcow2 "write -P 2 1M 3M"
qcow2_img snapshot -c third vm.qcow2
qcow2_img snapshot -d other vm.qcow2
expect_loads vm.qcow2 saved
fill vm.qcow2 qcow2 "read -P 1 0 2M"
qcow2_img snapshot -a third vm.qcow2
qcow2_img snapshot -d third vm.qcow2
fill vm.qcow2 qcow2 "read -P 2 1M 3M"
expect_loads vm.qcow2 saved

# It is applied, and the disk written; an overlay is committed into it.
qcow2_img snapshot -a saved vm.qcow2
expect_loads vm.qcow2 saved
qcow2_img create -q -f qcow2 -b vm.qcow2 -F qcow2 overlay.qcow2
fill overlay.qcow2 qcow2 "write -P 3 512k 4M"
qcow2_img commit -q overlay.qcow2
check_image overlay.qcow2
fill vm.qcow2 qcow2 "read -P 3 512k 4M"
expect_loads vm.qcow2 saved

# Another width of refcounts, another size.
qcow2_img amend -f qcow2 -o refcount_bits=64 vm.qcow2
qcow2_img resize -q vm.qcow2 32M
check_image vm.qcow2
qcow2_img snapshot load-state saved state.after vm.qcow2
cmp state.before state.after
qcow2_img resize -q --shrink vm.qcow2 16M
expect_loads vm.qcow2 saved

# A state that we stored is one that QEMU loads.
qcow2_img snapshot save-state copied state.before vm.qcow2
expect_output '^2 +copied +[1-9]' qemu-img snapshot -l vm.qcow2
check_image vm.qcow2
qcow2_img snapshot -d saved vm.qcow2
expect_loads vm.qcow2 copied
