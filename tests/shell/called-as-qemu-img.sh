#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Under the name qemu-img, qcow2-img answers what programs look at before they
# use qemu-img, in its form.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
ln -s "$abs_top_builddir/qcow2/tool/qcow2-img" qemu-img

# The version: libguestfs, Cinder and others parse the first line, and choose
# options by it.
version="$(./qemu-img --version | head -n 1)"
echo "$version"
[[ "$version" =~ ^qemu-img\ version\ ([0-9]+)\.([0-9]+)(\.[0-9]+)?\ \(.*nbdkit-qcow2 ]] \
    || fail "the first line is not in qemu-img's form"
[ $((BASH_REMATCH[1] * 100 + BASH_REMATCH[2])) -ge 702 ] || fail "too old"
[ "$(./qemu-img -V | head -n 1)" = "$version" ]
[ "$(./qemu-img --help | head -n 1)" = "$version" ]
qcow2_img --version | grep -q '^qcow2-img (nbdkit-qcow2 '

# The options: libguestfs looks for -U in the line of info.
./qemu-img --help >help
grep -P '\binfo\b.*-U\b' help || fail "info has no -U"
grep -qx 'Supported formats: .*\bqcow2\b.*\braw\b.*' help
qcow2_img --help | sed -nE 's/^  ([a-z]+) .*/\1/p' >verbs
nr=0
while read -r verb; do
    line="$(grep "^  $verb " help)" || fail "no line of $verb"
    for option in $(qcow2_img "$verb" --help \
            | sed -nE -e 's/^  (-[a-zA-Z]),? .*/\1/p' \
                      -e 's/^      (--[a-z-]+).*/\1/p'); do
        [ "$option" = -h ] || grep -qe " \[${option}[] =]" <<<"$line" \
            || fail "$verb: $option is not in its line"
        nr=$((nr + 1))
    done
done <verbs
echo "$nr options of $(wc -l <verbs) verbs"
[ "$nr" -ge 100 ] || fail "too few options were found"
# All that qemu-img has in those lines, but what the man page says is missing.
grep -q '^  resize .*--shrink.* FILE \[+|-\]SIZE$' help
grep -q '^  snapshot .*\[-c name\].* \[-l\] FILE | ' help
# libvirt 1 looks for this one.
grep -q '^  create .*-F fmt' help

# Messages begin with the name.
refuses '^qemu-img: absent: ' ./qemu-img info absent
refuses '^qemu-img: create: say the size' ./qemu-img create absent
grep -qx "Try 'qemu-img create --help'." refusal
refuses "^qemu-img: there is no verb 'frobnicate'; 'qemu-img --help' lists" \
    ./qemu-img frobnicate
refuses "^qemu-img: say what to do" ./qemu-img

# rebase changes what snapshots read, as qemu-img does, but says so; commit in
# img-commit.sh.
qcow2_img create -q -f qcow2 base 1M
fill base qcow2 "write -P 3 0 64k"
qcow2_img create -q -f qcow2 -b base -F qcow2 overlay
qcow2_img snapshot -c one overlay
refuses "'one'.*--change-snapshots" qcow2_img rebase -b '' overlay
./qemu-img rebase -b '' overlay 2>warning || fail "rebase failed"
grep -q "^qemu-img: warning: .*'one'" warning || fail "no warning"
qemu-img compare -f qcow2 overlay base
