#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What 'make install' installs, and that 'make uninstall' leaves nothing: the
# plugin without libtool's file, the documents where others have theirs.

. ./functions.sh
requires make --version

# at DIR: make with everything below it
at ()
{
    make -s -C "$abs_top_builddir" DESTDIR="$tmp/$1" plugindir=/plugins \
         docdir=/doc SUBDIRS='plugin .' "$2" >"$tmp/log" 2>&1 \
        || fail "make $2: $(cat "$tmp/log")"
}
at root install
(cd "$tmp/root" && find . -type f | LC_ALL=C sort) >"$tmp/installed"
diff -u - "$tmp/installed" <<END
./doc/COPYING
./doc/README.md
./doc/SECURITY.md
./plugins/nbdkit-qcow2-plugin.so
END
at root uninstall
[ -z "$(find "$tmp/root" -type f)" ] || fail "left: $(find "$tmp/root" -type f)"
