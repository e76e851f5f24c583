#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck has no objection to our scripts.

. ./functions.sh
requires shellcheck --version
cd "$abs_top_srcdir"

# SC1091: functions.sh is made by configure, in another directory.
# SC2016: single quotes keep $uri for the shell of nbdkit --run.
shellcheck -s bash -e SC1091,SC2016 quickstart .ci/run tests/functions.sh.in \
           tests/*/*.sh
