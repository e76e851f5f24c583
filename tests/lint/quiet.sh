#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The engine prints nothing and never ends the process: its callers do.

. ./functions.sh
cd "$abs_top_srcdir/qcow2"

forbidden='\b(v?f?printf|v?dprintf|f?puts|f?putc|putchar|perror|psignal'
forbidden+='|v?syslog|v?warnx?|v?errx?|stdout|stderr|abort|_?exit|_Exit'
forbidden+='|raise|getenv|setenv) *[(,;)]'

if grep -nE "$forbidden" -- *.[ch] | grep -vE '^[^:]*:[0-9]+: *(/\*|\*)'; then
    fail "the engine must not print, end the process or read its environment"
fi
