#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Our scripts are such that shellcheck has no objection.

. ./functions.sh
requires shellcheck --version
cd "$abs_top_srcdir"

# SC1091, SC2154: functions.sh is made by configure, in another directory.
# SC2016: single quotes keep $uri for the shell of nbdkit --run.
# SC2164: functions.sh sets -e.
shellcheck -s bash -S warning -e SC1091,SC2016,SC2154,SC2164 quickstart \
           .ci/run qcow2/tool/qcow2-img.bash tests/functions.sh.in \
           tests/*/*.sh
