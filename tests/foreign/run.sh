#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# foreign/run.sh: builds everything for machines unlike this one, and runs the
# unit tests there. In tests/ of the build tree; usually by make check-foreign:
#
#   i386    32 bits, and 64-bit numbers aligned to 4 bytes; natively where the
#           kernel runs such programs; with ASan and UBSan
#   s390x   big-endian; by qemu-user
#   musl    another C library, of which there are the headers alone: all of
#           the engine, the plugin and qcow2-img compiles with them
#
# FOREIGN_MACHINES names some of these, FOREIGN_TESTS other tests than unit/*.
#
# The compilers are Debian's cross compilers. What else has to be of the
# machine's kind (zlib, cmocka, ...) is unpacked below foreign-MACHINE, with an
# apt of its own there: nothing is installed, and dpkg learns no architecture.

set -eu
source="$1"
make=(make --no-print-directory)
libraries=(
    libcmocka-dev libcmocka0 libdeflate-dev libdeflate0 libjansson-dev
    libjansson4 libnbd-dev libseccomp-dev libseccomp2 libzstd-dev libzstd1
    nbdkit-plugin-dev zlib1g zlib1g-dev
)

# need PROGRAM PACKAGE
need ()
{
    command -v "$1" >/dev/null && return
    echo "$1 is missing (on Debian: apt-get install $2, or ./quickstart" \
         "check-foreign, which does)" >&2
    exit 1
}

# apt ARGUMENT...: of the foreign machine, with all its state below $dir
apt ()
{
    apt-get -q -o APT::Architecture="$machine" \
        -o APT::Architectures::="$machine" -o APT::Sandbox::User= \
        -o Dir::State="$dir/apt" -o Dir::State::status="$dir/apt/status" \
        -o Dir::Cache="$dir/apt" "$@" </dev/null
}

unpack_libraries ()
{
    local deb

    [ ! -e "$dir/root" ] || return 0
    rm -rf "$dir/apt" "$dir/new"
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/new"
    : >"$dir/apt/status"
    # A list that a mirror lacks matters only if a package is missing then.
    apt update || :
    (cd "$dir/apt" && apt download "${libraries[@]}")
    for deb in "$dir"/apt/*.deb; do
        dpkg-deb -x "$deb" "$dir/new"
    done
    mv "$dir/new" "$dir/root"
    rm -rf "$dir/apt"
}

# build TRIPLET LOADER [CONFIGURE OPTION...]
#
# The loader and the libraries are named in the programs. Emulators can be told
# of another root instead (-L), but then every path begins there, "/" too.
build ()
{
    local triplet="$1" loader="$2" root="$dir/root"
    local lib="usr/lib/${triplet/i686/i386}"

    if [ ! -e "$dir/config.status" ]; then
        (cd "$dir" && env PKG_CONFIG_LIBDIR="$root/$lib/pkgconfig" \
            PKG_CONFIG_SYSROOT_DIR="$root" \
            "$source/configure" -q --host="$triplet" --enable-gcc-warnings \
            --without-isal --with-plugindir="$dir/plugins" \
            CC="$triplet-gcc" CFLAGS="-g -O1" \
            CPPFLAGS="-isystem $root/usr/include \
                -isystem $root/usr/include/${triplet/i686/i386}" \
            LDFLAGS="-L$root/$lib -L$root/${lib#usr/} \
                -Wl,--dynamic-linker=/usr/$triplet/lib/$loader \
                -Wl,-rpath,/usr/$triplet/lib \
                -Wl,-rpath,$root/$lib -Wl,-rpath,$root/${lib#usr/}" \
            "${@:3}")
    fi
    "${make[@]}" -C "$dir" -j "$(nproc)" all
}

# run_tests TEST...: LOG_COMPILER is what automake runs them by.
run_tests ()
{
    "${make[@]}" -C "$dir/tests" -j "$(nproc)" check TESTS="$*" \
        LOG_COMPILER="$emulator" VERBOSE=1
}

# A kernel for x86_64 runs i386 programs unless it was built without.
i386 ()
{
    need i686-linux-gnu-gcc gcc-i686-linux-gnu
    unpack_libraries
    build i686-linux-gnu ld-linux.so.2 --enable-sanitizers
    emulator=
    /usr/i686-linux-gnu/lib/ld-linux.so.2 --version >/dev/null 2>&1 \
        || emulator=qemu-i386-static
    [ -z "$emulator" ] || need "$emulator" qemu-user-static
    run_tests "$@"
}

s390x ()
{
    need s390x-linux-gnu-gcc gcc-s390x-linux-gnu
    need qemu-s390x-static qemu-user-static
    unpack_libraries
    build s390x-linux-gnu ld64.so.1
    emulator=qemu-s390x-static
    run_tests "$@"
}

# Debian has no libraries for musl, but those for glibc have the same headers.
musl ()
{
    local include="$dir/root/usr/include" triplet file failed=0 machine
    local libraries=(
        libdeflate-dev libjansson-dev libnbd-dev libseccomp-dev libzstd-dev
        linux-libc-dev musl-dev nbdkit-plugin-dev zlib1g-dev
    )

    need gcc gcc
    triplet="$(gcc -dumpmachine)"
    machine="$(dpkg --print-architecture)"
    unpack_libraries
    sed '/HAVE_ISAL/d' ../config.h >"$dir/config.h"
    for file in "$source"/qcow2/*/*.c "$source"/plugin/*.c; do
        gcc -fsyntax-only -Wall -Wextra -Werror -std=gnu11 -D_GNU_SOURCE \
            -DHAVE_CONFIG_H -I"$dir" -I"$source/qcow2" -nostdinc \
            -isystem "$include/${triplet/gnu/musl}" \
            -isystem "$(gcc -print-file-name=include)" \
            -isystem "$include" -isystem "$include/$triplet" "$file" \
            || failed=$((failed + 1))
    done
    echo "musl: $failed files do not compile"
    [ "$failed" -eq 0 ]
}

need apt-get apt
need dpkg-deb dpkg
read -ra tests <<<"${FOREIGN_TESTS:-}"
if [ ${#tests[@]} -eq 0 ]; then
    for test in "$source"/tests/unit/test-*.c; do
        test="${test#"$source"/tests/}"
        tests+=("${test%.c}")
    done
fi
read -ra machines <<<"${FOREIGN_MACHINES:-musl i386 s390x}"
for machine in "${machines[@]}"; do
    case "$machine" in
        i386 | musl | s390x) ;;
        *) echo "foreign/run.sh: no machine '$machine'" >&2; exit 1 ;;
    esac
    dir="$PWD/foreign-$machine"
    mkdir -p "$dir"
    echo "=== $machine"
    "$machine" "${tests[@]}"
done
