#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every class of hostile images in hostile.md has a test, which exists and is
# run; and so has every promise of SECURITY.md.

. ./functions.sh
cd "$srcdir"

bad=0
complain ()
{
    echo "$*"
    bad=1
}

# Its rows: 1 to 73, what small inputs cost, and the vulnerabilities of others.
costs=(state-size state-repeats l1-of-layers l1-of-snapshots
       slices-of-layers names-of-layers depth-of-directory
       plan-of-repair zeroes-of-version-2 tables-of-version-1 blocks-of-nothing every-verb)
rows="$(grep -oE '^\| (CVE-[0-9]+-[0-9]+|[0-9]+|[a-z][a-z0-9]*(-[a-z0-9]+)+) \|' \
    hostile.md | tr -d '| ')"
wanted="$(seq 73; printf '%s\n' "${costs[@]}"
          printf 'CVE-2014-0%d\n' {142..150}; echo CVE-2024-4467
          echo CVE-2024-32498; echo CVE-2026-24708)"
diff <(echo "$wanted") <(echo "$rows") || complain "rows of hostile.md"
while IFS= read -r row; do
    [[ "$row" == *'`'*/*'`'* || "$row" == *"nothing to guard"* ]] \
        || complain "no test: $row"
done < <(grep -E '^\| (CVE|[0-9]|[a-z][a-z0-9]*-)' hostile.md)

# exists TEST [PART]
exists ()
{
    case "$1" in
        *.sh)
            [ -e "$1" ] && grep -qF "	$1 \\" Makefile.am ;;
        check/*)
            [ -e "$1/recipe" ] && [ -e "$1/expect" ] ;;
        *)
            [ -e "$1.c" ] && grep -qE "	$1( \\\\)?$" Makefile.am || return
            [ -n "${2-}" ] || return 0
            # Registered, on the line of its macro or on the next.
            tr -d '\n' <"$1.c" | grep -qE "(TEST|cmocka_unit_test[a-z_]*)\(\
 *$2[,)]" ;;
    esac
}

# The promises of SECURITY.md, each a paragraph that begins in bold letters.
grep -q "lists $(grep -c '^[0-9]*$' <<<"$wanted") classes" ../SECURITY.md \
    || complain "SECURITY.md: another number of classes"
untested="$(awk '
    function end() { if (promise && !tested) print promise; promise = "" }
    /^## |^\*\*/ { end() }
    /^\*\*/ { promise = $0; tested = 0 }
    /^Tests?:|[.] Tests?:/ { tested = 1 }
    END { end() }' ../SECURITY.md)"
[ -z "$untested" ] || complain "SECURITY.md: no test: $untested"

nr=0
while IFS=: read -r test part; do
    nr=$((nr + 1))
    exists "$test" "${part# }" || complain "there is no $test:$part"
done < <(cat hostile.md ../SECURITY.md | tr '\n' ' ' \
    | grep -oE '`(unit|data|fault|crash|stress|fuzz|check|shell|lint)/[^`]*`' \
    | tr -d '`' | sort -u)
[ "$nr" -gt 100 ] || complain "only $nr tests are named?"

exit $bad
