#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a message advises for a backing file that must not be opened helps the
# verb that says so; what would help is advised. (-U: see no-locks.sh.)

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
mkdir theirs made
qcow2_img create -q -f qcow2 theirs/base 1M
fill theirs/base qcow2 "write -P 1 0 64k"
qcow2_img create -q -f qcow2 -b "$tmp/theirs/base" -F qcow2 made/overlay
fill made/overlay qcow2 "write -P 2 512k 64k"
cp theirs/base made/mine

cat >lines <<'END'
amend -o compat=1.1 work/overlay
bench -c 1 work/overlay
chain work/overlay
commit work/overlay
compare work/overlay work/overlay
convert work/overlay work/new
create -f qcow2 -b overlay -F qcow2 work/new
dd if=work/overlay of=work/new
info --backing-chain work/overlay
map work/overlay
measure work/overlay
rebase -b mine -F qcow2 work/overlay
resize work/overlay +1M
END
for verb in $(qcow2_img --help | sed -nE 's/^  ([a-z]+) .*/\1/p'); do
    case "$verb" in
        bitmap|check|snapshot) ;; # they open no backing file
        *) grep -q "^$verb " lines || fail "no line for $verb" ;;
    esac
done

# run WORD...: in new files; the status is in $status.
run ()
{
    rm -rf work
    cp -r made work
    status=0
    qcow2_img "$@" >/dev/null 2>err || status=$?
}

nr=0
while read -r line; do
    read -r verb rest <<<"$line"
    # shellcheck disable=SC2206  # words
    words=($rest)
    run "$verb" "${words[@]}"
    cat err
    [ "$status" -ne 0 ] || fail "$line: the base was opened"
    cp err refusal
    allow="$(sed -nE 's/.*; (--allow=[^ ;]+) allows it.*/\1/p' refusal)"
    [ -n "$allow" ] || fail "$line: no --allow="
    run "$verb" "$allow" "${words[@]}"
    [ "$status" -eq 0 ] || fail "$line: $allow does not help: $(cat err)"

    run "$verb" --source-backing=work/mine "${words[@]}"
    if grep -q -e '--source-backing=FILE' refusal; then
        [ "$status" -eq 0 ] || fail "$line: --source-backing does not help"
    else
        [ "$status" -ne 0 ] || fail "$line: --source-backing would have helped"
    fi
    nr=$((nr + 1))
done <lines
echo "$nr verbs"
