#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The engine prints nothing and never ends the process: its callers do. Nor
# does it know their options and parameters: it gives hints (qcow2.h).

. ./functions.sh
cd "$abs_top_srcdir/qcow2"

calls='v?f?printf|v?dprintf|f?puts|f?putc|putchar|perror|psignal|v?syslog'
calls+='|v?warnx?|v?errx?|abort|_?exit|_Exit|raise|getenv|secure_getenv|setenv'
forbidden="\\b(($calls)\\(|stdout\\b|stderr\\b)"

if grep -nE "$forbidden" -- [!t]*/*.[ch] qcow2.h \
    | grep -vE '^[^:]*:[0-9]+: *(/\*|\*)'; then
    fail "the engine must not print, end the process or read its environment"
fi

# (format/header.c names the program that reads what we cannot.)
words='--[a-z]+-?[a-z]*|-[rU]\b|\b(allow|backing|backing-format|lock)=|qemu-img'
words+='|qcow2-img'
if grep -nE "\"[^\"]*($words)" -- [!t]*/*.c \
    | grep -v '^format/header\.c:'; then
    fail "these words are for the plugin and the tool to say"
fi
