#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin exports what nbdkit looks up in it and nothing else.

. ./functions.sh
requires nm --version

symbols="$(nm -D --defined-only "$plugin" | awk '{ print $NF }')"
grep -qx plugin_init <<<"$symbols" || fail "plugin_init is not exported"
if grep -vE '^(plugin_init|qcow2_debug_[a-z]+)$' <<<"$symbols"; then
    fail "these symbols should be private"
fi
