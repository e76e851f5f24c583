#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fuzz/run.sh: fuzzes the engine in a build of its own. In tests/ of the build
# tree; usually by make:
#
#   make check-fuzz     libFuzzer, with ASan and UBSan
#   make check-afl      AFL++, the same
#   make fuzz-coverage  lines of the engine that the inputs of both run
#
# FUZZ_SECONDS (60) each of FUZZ_TARGETS (all). What is found stays in
# fuzz-…/corpus, so that the next run goes on from there, and in
# fuzz-…/findings: then the exit status is 1. To look at a finding:
#
#   FUZZ_TARGET=write fuzz-libfuzzer/tests/fuzz/fuzz FILE

set -eu
mode="$1"
source="$2"
seconds="${FUZZ_SECONDS:-60}"
read -ra targets <<<"${FUZZ_TARGETS:-open read write check snapshots \
bitmaps decompress qcow1}"
dir="$PWD/fuzz-$mode"

# need PROGRAM PACKAGE
need ()
{
    command -v "$1" >/dev/null && return
    echo "$1 is missing (on Debian: apt-get install $2)" >&2
    exit 1
}

# build CC CFLAGS [CONFIGURE OPTION...]: replay and, but for coverage, fuzz
build ()
{
    local programs=(fuzz/replay)
    [ "$mode" = coverage ] || programs+=(fuzz/fuzz)
    mkdir -p "$dir"
    if [ ! -e "$dir/config.status" ]; then
        (cd "$dir" && "$source/configure" -q CC="$1" CFLAGS="$2" "${@:3}")
    fi
    make -C "$dir/qcow2" --no-print-directory -s libqcow2.la
    make -C "$dir/tests" --no-print-directory -s "${programs[@]}"
    mkdir -p "$dir/seeds" "$dir/corpus" "$dir/findings" "$dir/logs"
    abs_top_srcdir="$source" "$dir/tests/fuzz/replay" -w "$dir/seeds" \
        >/dev/null
}

# What was kept, without sanitizers, takes a second at most: else it is a
# finding.
replay_in_a_second ()
{
    local t="$1" f
    local inputs="$dir/corpus/$t"
    [ "$mode" = libfuzzer ] || inputs="$inputs/default/queue"
    FUZZ_CPU_MS=1000 fuzz/replay "$t" "$inputs" >"$dir/logs/$t.replay" 2>&1 \
        && return
    for f in "$inputs"/*; do
        FUZZ_CPU_MS=1000 fuzz/replay "$t" "$f" >/dev/null 2>&1 \
            || cp "$f" "$dir/findings/$t-replay-${f##*/}"
    done
}

# The wall says nothing where others run: the last line of stderr is how many
# CPU seconds a command took, with all that it left behind.
with_cpu_seconds ()
{
    python3 -c '
import ctypes, os, resource, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
if os.fork() == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(round(r.ru_utime + r.ru_stime), file=sys.stderr)' "$@"
}

# run_libfuzzer TARGET. Memory is limited by the harness itself (bounds.c),
# as are CPU seconds: what the sanitizers take is not the engine's.
run_libfuzzer ()
{
    local t="$1"
    mkdir -p "$dir/corpus/$t"
    FUZZ_TARGET="$t" ASAN_OPTIONS=quarantine_size_mb=16 \
        with_cpu_seconds "$dir/tests/fuzz/fuzz" -max_total_time="$seconds" \
        -timeout=1200 -max_len=65536 -malloc_limit_mb=256 -rss_limit_mb=1024 -reload=0 \
        -print_final_stats=1 -report_slow_units=3600 \
        -artifact_prefix="$dir/findings/$t-" \
        "$dir/corpus/$t" "$dir/seeds/$t"
}

run_afl ()
{
    local t="$1"
    FUZZ_TARGET="$t" AFL_NO_UI=1 AFL_NO_AFFINITY=1 AFL_AUTORESUME=1 \
        AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
        ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0 \
        with_cpu_seconds afl-fuzz -V "$seconds" -m none -t 600000 \
        -i "$dir/seeds/$t" -o "$dir/corpus/$t" -- "$dir/tests/fuzz/fuzz"
    for f in "$dir/corpus/$t"/default/crashes/id:*; do
        [ ! -e "$f" ] || cp "$f" "$dir/findings/$t-${f##*/id:}"
    done
}

# statistics TARGET: executions, coverage and corpus, as the fuzzers tell
statistics ()
{
    local log="$dir/logs/$1" afl="$dir/corpus/$1/default/fuzzer_stats"
    if [ "$mode" = libfuzzer ]; then
        sed -nE 's/^stat::number_of_executed_units: //p' "$log"
        grep -oE ' cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1
        find "$dir/corpus/$1" -type f | wc -l
    else
        sed -nE 's/^execs_done +: //p' "$afl"
        sed -nE 's/^edges_found +: / edges: /p' "$afl"
        sed -nE 's/^corpus_count +: //p' "$afl"
    fi | xargs
}

fuzz_all ()
{
    local t
    for t in "${targets[@]}"; do
        echo "$t: $seconds s"
        "run_$mode" "$t" >"$dir/logs/$t" 2>&1 || :
        echo "$t: executions, coverage, corpus: $(statistics "$t");" \
             "CPU seconds: $(grep -E '^[0-9]+$' "$dir/logs/$t" | tail -n 1)"
        replay_in_a_second "$t"
    done
    if [ -n "$(ls "$dir/findings")" ]; then
        echo "Findings in $dir/findings:"
        ls -l "$dir/findings"
        return 1
    fi
    echo "Nothing found."
}

coverage_all ()
{
    local t inputs
    export LLVM_PROFILE_FILE="$dir/profiles/%p"
    rm -rf "$dir/profiles"
    for t in "${targets[@]}"; do
        inputs=("$dir/seeds/$t")
        for d in fuzz-libfuzzer/corpus/"$t" \
                 fuzz-afl/corpus/"$t"/default/queue; do
            [ ! -d "$d" ] || inputs+=("$d")
        done
        "$dir/tests/fuzz/replay" "$t" "${inputs[@]}"
    done
    llvm-profdata merge -o "$dir/all.profdata" "$dir/profiles"
    llvm-cov report "$dir/tests/fuzz/replay" \
        -instr-profile="$dir/all.profdata" "$source"/qcow2/[!t]*/*.c
}

# Without sanitizers, for the last look at what was kept.
if ! make --no-print-directory -s fuzz/replay; then
    echo "this build has no tests in C (on Debian: libcmocka-dev)" >&2
    exit 1
fi
need python3 python3
case "$mode" in
    libfuzzer)
        need clang clang
        # Tracing comparisons takes half of the time; commands (input.h) find
        # what it would.
        build clang "-g -O1 -fsanitize=fuzzer-no-link \
            -fno-sanitize-coverage=trace-cmp" --enable-sanitizers
        fuzz_all
        ;;
    afl)
        need afl-clang-fast afl++
        need afl-fuzz afl++
        build afl-clang-fast "-g -O1" --enable-sanitizers
        fuzz_all
        ;;
    coverage)
        need clang clang
        need llvm-cov llvm
        build clang \
            "-g -O1 -fprofile-instr-generate -fcoverage-mapping"
        coverage_all
        ;;
esac
