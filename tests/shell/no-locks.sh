#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# File systems without locks: everything works there, with a warning. Where a
# lock cannot be had for another reason nothing is done, and -U is advised
# exactly where it helps.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
build_preloaded no-locks

qcow2_img create -q -f qcow2 made-base 1M
fill made-base qcow2 "write -P 1 0 512k"
cp made-base base
qcow2_img create -q -f qcow2 -b base -F qcow2 made-overlay 1M
fill made-overlay qcow2 "write -P 2 64k 64k"
cp made-base made-disk
qcow2_img snapshot -c one made-disk
echo state | qcow2_img snapshot save-state two - made-disk
head -c 70000 /dev/zero >made-raw
cp made-base made-marked
qcow2_img bitmap --add made-marked kept

# Every verb, and whatever it does in different ways.
cat >lines <<'END'
amend -o lazy_refcounts=on disk
bench -c 1 disk
bench -c 1 -w disk
bitmap --add disk new
bitmap --add --merge kept -b marked disk new
bitmap --dump marked kept
chain overlay
chain .
check disk
check -r all disk
check -r all --plan disk
commit overlay
commit -d overlay
compare disk base
convert -O qcow2 disk new
convert -O raw disk new
convert -c -O qcow2 overlay new
convert -n -O qcow2 base disk
create -f qcow2 new 1M
create -f qcow2 -o preallocation=metadata new 1M
create -f qcow2 -b base -F qcow2 new
create -f raw new 1M
create -f qcow2 disk 1M
dd if=disk of=new bs=64k
info disk
info --backing-chain overlay
map overlay
measure -O qcow2 disk
rebase -b disk -F qcow2 overlay
rebase -u -b disk -F qcow2 overlay
rebase -b '' overlay
resize disk +1M
resize -f raw raw +1M
snapshot disk
snapshot -l disk
snapshot -c three disk
snapshot -a one disk
snapshot -d one disk
snapshot save-state three raw disk
snapshot load-state two new disk
END
for verb in $(qcow2_img --help | sed -nE 's/^  ([a-z]+) .*/\1/p'); do
    grep -q "^$verb " lines || fail "no line for $verb"
done

# run LOCKS NAME ARG...: on new files; the status, standard output and error
# are those of the command, in NAME.*.
run ()
{
    local locks="$1" name="$2"
    shift 2
    rm -f new
    for file in base overlay disk raw marked; do
        cp "made-$file" "$file"
    done
    echo 0 >"$name.status"
    LD_PRELOAD="$preload" LOCKS_FAIL="$locks" qcow2_img "$@" \
        >"$name.out" 2>"$name.err" </dev/null || echo $? >"$name.status"
}

nr=0
while read -r line; do
    eval "words=($line)"
    eval "with_u=(${line/ / -U })"

    # No locks: as with locks, but for the warning.
    run '' with "${words[@]}"
    run all without "${words[@]}"
    [ "$(cat with.status)" = 0 ] || fail "$line: $(cat with.err)"
    cmp with.status without.status || fail "$line: $(cat without.err)"
    case "$line" in
        bench*) ;;
        *) cmp with.out without.out || fail "$line: other output" ;;
    esac
    [ "$(grep -c 'warning: .*: its file system keeps no locks' \
         without.err)" -eq 1 ] || fail "$line: no warning, or several"
    grep -v 'keeps no locks' without.err | cmp - with.err \
        || fail "$line: other messages"

    # No more locks can be had.
    run set refused "${words[@]}"
    cat refused.err
    [ "$(cat refused.status)" -ne 0 ] || [[ "$line" == "chain ." ]] \
        || fail "$line: went on"
    for file in base overlay disk raw marked; do
        cmp "made-$file" "$file" || fail "$line: changed $file"
    done
    if [ -e new ] && [[ "$line" != *load-state* ]]; then
        fail "$line: left a file behind"
    fi
    run set unlocked "${with_u[@]}"
    if grep -q -e '-U' refused.err; then
        # The target of a copy needs its lock all the same.
        target="${words[-1]}"
        [[ "$line" == convert* ]] || target=new
        [ "$(cat unlocked.status)" -eq 0 ] \
            || grep -qx "qcow2-img: $target: cannot lock[^;]*" unlocked.err \
            || fail "$line: -U does not help: $(cat unlocked.err)"
    elif [[ "$line" != "chain ." ]]; then
        [ "$(cat unlocked.status)" -ne 0 ] \
            || fail "$line: -U would have helped"
    fi
    nr=$((nr + 1))
done <lines
echo "$nr command lines"

# The server, which says it once.
if [ -z "$sanitizer_runtime" ]; then
    cp made-disk disk
    LD_PRELOAD="$preload" LOCKS_FAIL=all nbdkit_qcow2 disk --run '
        qemu-io -f raw -c "write 0 512" "$uri" \
            && qemu-io -f raw -c "read 0 512" "$uri"' 2>log
    cat log
    [ "$(grep -c 'warning: .*disk: its file system keeps no locks' log)" \
      -eq 1 ] || fail "the server did not warn, or more than once"
    expect_failure env LD_PRELOAD="$preload" LOCKS_FAIL=set \
        nbdkit "$plugin" disk --run 'qemu-io -f raw -c "read 0 512" "$uri"' \
        2>log
    grep -q 'cannot lock the file.*lock=off' log || fail "no remedy"
fi
