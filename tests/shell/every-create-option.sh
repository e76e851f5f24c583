#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Images of all combinations of options that qemu-img create takes, made by it
# and by qcow2-img, survive random requests of ours and QEMU's in turn. Some of
# the combinations, or all of them with CREATE_OPTIONS=all.

. ./functions.sh
. "$srcdir/shell/img.sh"
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires qemu-io --version
cd "$tmp"
stride=83
[ "${CREATE_OPTIONS:-}" != all ] || stride=1
export ASAN_OPTIONS="log_path=$tmp/sanitizer" LSAN_OPTIONS=exitcode=0
export UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1"
export TSAN_OPTIONS="log_path=$tmp/sanitizer"
preload=
if [ -n "$sanitizer_runtime" ]; then
    make_no_freelocale
    preload="$sanitizer_runtime $tmp/no-freelocale.so"
fi
cat >serve <<END
#!/bin/sh
LD_PRELOAD="$preload" exec nbdkit "$plugin" "\$@"
END
chmod +x serve
"$nbd_python" "$srcdir/shell/every-create-option.py" \
    "$abs_top_builddir/qcow2/tool/qcow2-img" "$tmp/serve" "$stride" \
    || fail "an image did not survive"
