#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Backing files in other directories are opened if QCOW2_ALLOW, or the
# system's list that root alone can write, allows them: by the tool and by the
# server, also one that restricts itself.

. ./functions.sh
tests="$PWD"
requires nbdinfo --version
cd "$tmp"

mkdir images bases
qcow2_img create -q -f qcow2 bases/base.qcow2 1M
qcow2_img create -q -f qcow2 -b ../bases/base.qcow2 -F qcow2 images/a.qcow2
disk=images/a.qcow2
remote='nbd+unix:///?socket=/no/such'
why="refused: '$tmp/bases/base.qcow2' lies outside"

opens ()
{
    qcow2_img map "$disk" >/dev/null
    qcow2_img info --backing-chain "$disk" >/dev/null
    qcow2_img compare "$disk" bases/base.qcow2
    qcow2_img convert -O raw "$disk" copy.raw
    qcow2_img resize -q "$disk" 1M
    nbdkit_qcow2 -U - "$disk" --run 'nbdinfo --size "$uri"'
    nbdkit_qcow2 -U - dir=images --run \
        'nbdinfo --size "nbd+unix:///a.qcow2?socket=$unixsocket"'
}

refuses ()
{
    expect_output "$why.*; --allow=$tmp/bases allows it" \
        expect_failure qcow2_img map "$disk"
    expect_output "$why.*; allow=$tmp/bases allows it" \
        expect_failure nbdkit_qcow2 -U - "$disk" --run true
}

# What follows has /etc to itself.
if [ "${1:-}" = in-namespace ]; then
    mkdir etc
    cp -a /etc/. etc 2>/dev/null || :
    mount --bind etc /etc
    list=/etc/nbdkit-qcow2/allow
    refuses
    mkdir -p "${list%/*}"
    printf '# Bases\n%s\n\n%s\n' "$remote" "$tmp/bases" >$list
    chmod 644 $list
    chmod 755 "${list%/*}"
    opens
    chmod 664 $list
    refuses
    expect_output "ignored: $list: it can be written by others than root" \
        qcow2_img map "$disk"
    expect_output "ignored: $list: it can be written by others than root" \
        nbdkit_qcow2 -U - "$disk" --run true
    QCOW2_ALLOW="$tmp" opens
    chmod 644 $list
    chmod 777 "${list%/*}"
    refuses
    exit 0
fi

refuses
QCOW2_ALLOW='' refuses
QCOW2_ALLOW="$tmp/images:/no/such:$remote" refuses
QCOW2_ALLOW="$tmp/bases" opens
QCOW2_ALLOW="$remote:$tmp/images:/no/such:$tmp/bases" opens
(cd images && disk=a.qcow2 && QCOW2_ALLOW=/ qcow2_img map "$disk")

# A mistake allows nothing, and leaves the rest as it is.
QCOW2_ALLOW=bases refuses
QCOW2_ALLOW="bases:$tmp/bases" opens
QCOW2_ALLOW="bases:$tmp/bases" expect_output \
    "QCOW2_ALLOW: ignored: 'bases' is neither" qcow2_img map "$disk"
QCOW2_ALLOW="bases:$tmp/bases" expect_output \
    "QCOW2_ALLOW: ignored: 'bases' is neither" \
    nbdkit_qcow2 -U - "$disk" --run true

mkdir etc
if ! unshare -rm mount --bind etc /etc 2>/dev/null; then
    echo "no namespaces here: the system's list was not tried"
    exit 0
fi
rmdir etc
script="$(cd "$tests" && realpath "$0")"
(cd "$tests" && unshare -rm bash "$script" in-namespace)
