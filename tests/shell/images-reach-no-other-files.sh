#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Whatever an image names, and whatever is done with it: no file outside its
# directory is opened, nobody is connected to, no file is written but the one
# on the command line, and nothing of a secret shows. Each in bounded time and
# memory. (CVE-2024-32498, CVE-2024-4467, CVE-2026-24708 are of this kind.)

. ./functions.sh
requires python3 --version
requires qcow2_img --version
requires nbdcopy --version
requires nbdinfo --version

mkdir "$tmp/inside" "$tmp/outside"
cd "$tmp/inside"
cases="$(python3 "$srcdir/shell/hostile-images.py" . ../outside)"
(cd ../outside && sha256sum ./*) >"$tmp/outside.sums"

coproc witness { exec python3 "$srcdir/shell/witness.py" . ../outside; }
# Its descriptors, where the shell does not close them.
exec {asked}>&"${witness[1]}" {told}<&"${witness[0]}"
read -r line <&"$told"
[ "$line" = ready ] || fail "no witness"

# what_was_seen: sets $seen
what_was_seen ()
{
    echo >&"$asked"
    read -r seen <&"$told"
}

# bounded COMMAND [ARG...]: 10 s of the processor, 256 MiB of memory
bounded ()
(
    ulimit -t 10 -s 1024
    [ -n "$sanitizer_runtime" ] || ulimit -d 262144
    "$@"
)

# harmless NAME... -- COMMAND [ARG...]
# The command, which may change files of these names (patterns) only, and sets
# $status, and $opened, the files that it opened. Its output is in ../out.
harmless ()
{
    local mine="" word file pattern
    while [ "$1" != -- ]; do
        mine+=" $1"
        shift
    done
    shift
    status=0
    bounded "$@" >../out 2>&1 </dev/null || status=$?
    [ "$status" -lt 128 ] || fail "'$*' died ($status): $(cat ../out)"
    ! grep -qi 'cannot allocate' ../out || fail "'$*': $(cat ../out)"
    ! grep -q SECRET ../out || fail "'$*' shows the secret"
    what_was_seen
    opened=""
    for word in $seen; do
        file="${word#*:./}"
        case "$word" in
            opened:./*) opened+=" $file"; continue ;;
            read:./*) continue ;;
        esac
        for pattern in $mine; do
            # shellcheck disable=SC2053  # it is a pattern
            [[ "$file" != $pattern ]] || continue 2
        done
        fail "'$*': $word"
    done
}

# The witness sees.
cat ../outside/secret.raw >/dev/null
: >>beside.raw
touch beside.raw
what_was_seen
[[ "$seen" == *"opened:../outside/secret.raw"* && \
   "$seen" == *"changed:./beside.raw"* ]] || fail "it saw only '$seen'"

# refused SAYS: and the last command said why
refused ()
{
    [ "$1" = - ] && return
    [ "$status" -ne 0 ] || fail "$name: it was not refused"
    grep -Eq "${1//./ }" ../out || fail "$name: no '$1' in: $(cat ../out)"
}

# alone NAME: nothing else was opened
alone ()
{
    [ "$opened" = " $1" ] || fail "with $1 there were opened$opened"
}

# read_only NAME SAYS: all that only reads
read_only ()
{
    local name="$1" says="$2"
    harmless -- qcow2_img info "$name"
    alone "$name"
    harmless -- qcow2_img info --output=json "$name"
    alone "$name"
    harmless -- qcow2_img info --backing-chain "$name"
    harmless -- qcow2_img check "$name"
    alone "$name"
    harmless -- qcow2_img chain "$name"
    harmless -- qcow2_img snapshot -l "$name"
    alone "$name"
    harmless -- qcow2_img map --output=json "$name"
    refused "$says"
    harmless -- qcow2_img measure -O qcow2 "$name"
    harmless -- qcow2_img compare "$name" beside.raw
    harmless -- qcow2_img bench -q -c 3 "$name"
    for output in raw qcow2; do
        harmless 'new*' -- qcow2_img convert -O $output "$name" new
        refused "$says"
        ! grep -q SECRET new 2>/dev/null || fail "$name: the secret is copied"
        harmless 'new*' -- rm -f new
    done
    harmless 'new*' -- qcow2_img dd -O raw if="$name" of=new
    refused "$says"
    harmless 'new*' -- rm -f new
    harmless 'new*' -- qcow2_img create -q -f qcow2 -b "$name" -F qcow2 new
    harmless 'new*' -- rm -f new
    harmless -- nbdkit_qcow2 -r -U - "$name" --run true
    refused "$says"
}

# writing NAME SAYS: all that would write to it
writing ()
{
    local name="$1" says="$2"
    # again COMMAND...: with a copy called "it"
    again ()
    {
        harmless it -- cp "$name" it
        harmless it -- "$@"
    }
    again qcow2_img check -q -r all it
    alone it
    again qcow2_img resize -q it +1M
    again qcow2_img resize -q --shrink it 4096
    again qcow2_img amend -q -o lazy_refcounts=on it
    again qcow2_img amend -q -o compat=0.10 it
    again qcow2_img snapshot -q -c one it
    alone it
    again qcow2_img commit -q it
    refused "$says"
    again qcow2_img rebase -q -b '' it
    refused "$says"
    again qcow2_img rebase -q -b beside.raw -F raw it
    again qcow2_img rebase -q -u -b '' it
    again qcow2_img bench -q -w -c 3 it
    again nbdkit_qcow2 -U - it --run 'nbdcopy -- beside.raw "$uri"'
    refused "$says"
    harmless it -- rm -f it
}

nr=0
while read -r name says; do
    read_only "$name" "$says"
    [ "$says" = - ] || writing "$name" "$says"
    nr=$((nr + 1))
done <<<"$cases"
[ "$nr" -ge 37 ] || fail "only $nr images"

# All of them as exports; those that are refused hide no other.
harmless -- nbdkit_qcow2 -r -U - dir=. --run 'nbdinfo --list "$uri"'
harmless -- nbdkit_qcow2 -r -U - dir=. \
         --run 'nbdcopy "nbd+unix:///json-file?socket=$unixsocket" null:'
[ "$status" -ne 0 ] || fail "the export was served"

# A guest's raw disk with a header: as raw it is raw, to its last byte.
for name in absolute json-file data-file layer-between data-file-raw; do
    harmless it -- cp "$name" it
    for command in "info -f raw" "resize -q -f raw" "map -f raw"; do
        args=(it)
        [[ "$command" != resize* ]] || args+=(64K)
        # shellcheck disable=SC2086  # words
        harmless it -- qcow2_img $command "${args[@]}"
        [ "$status" -eq 0 ] || fail "$command: $(cat ../out)"
    done
    cmp -n "$(stat -c %s "$name")" "$name" it || fail "resize changed $name"
    harmless it 'new*' -- qcow2_img convert -f raw -O raw it new
    cmp it new || fail "$name was not copied as raw"
    harmless it 'new*' -- nbdkit_qcow2 -U - it format=raw \
             --run 'nbdcopy "$uri" new && nbdcopy new "$uri"'
    cmp it new || fail "$name was not served as raw"
    harmless it 'new*' -- rm -f it new
    # In an overlay that declares it raw.
    harmless it 'new*' -- cp "$name" it
    harmless it 'new*' -- qcow2_img create -q -f qcow2 -b it -F raw new
    harmless 'new*' -- nbdkit_qcow2 -r -U - new --run 'nbdcopy "$uri" new.raw'
    cmp it new.raw || fail "$name was not a raw backing file"
    harmless it 'new*' -- rm -f it new new.raw
done

# And with allow= it is what is allowed, no more.
harmless -- true
bounded qcow2_img convert -O raw --allow=../outside absolute ../copy.raw
head -c 6 ../copy.raw | grep -q SECRET || fail "allow= does not help"
what_was_seen
for word in $seen; do
    [[ "$word" == *:./absolute || "$word" == *:../outside/secret.raw ]] \
        && [[ "$word" != changed:* ]] \
        || fail "allow=: $word"
done

(cd ../outside && sha256sum -c --quiet "$tmp/outside.sums") \
    || fail "files outside have changed"
