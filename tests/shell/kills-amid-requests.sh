#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Killed amid random writes, zeroes, trims, flushes and FUA on several
# connections, again and again: what was flushed is there, and the image leaks
# at worst. KILL_ROUNDS and TEST_SEED make longer and other runs; so does
# 'make check-kill'.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

export plugin tmp sanitizer_runtime
export -f nbdkit_qcow2 make_no_freelocale
# shellcheck disable=SC2016
PYTHONDONTWRITEBYTECODE=1 "$nbd_python" "$srcdir/shell/kill-rounds.py" \
    "$tmp" "${KILL_ROUNDS:-16}" "${TEST_SEED:-1}" \
    bash -c 'nbdkit () { exec nbdkit "$@"; }; nbdkit_qcow2 "$@"' nbdkit
