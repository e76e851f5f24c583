#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img snapshot creates, lists, applies and deletes; QEMU agrees with
# what it made, and it with what QEMU made.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

qemu-img create -q -f qcow2 disk.qcow2 8M
fill disk.qcow2 qcow2 "write -P 1 0 2M"
qcow2_img snapshot -c one disk.qcow2
check_image disk.qcow2
fill disk.qcow2 qcow2 "write -P 2 1M 2M"
qemu-img snapshot -c two disk.qcow2
fill disk.qcow2 qcow2 "write -P 3 0 4M"
qcow2_img snapshot create three disk.qcow2
check_image disk.qcow2

# Both list the same.
qemu-img snapshot -l disk.qcow2 >theirs
qcow2_img snapshot -l disk.qcow2 >ours
diff -u theirs ours
qcow2_img snapshot list disk.qcow2 | diff -u theirs -
qcow2_img snapshot list --output=json disk.qcow2 >out.json
[ "$(json_value out.json 2.name)" = three ] || fail "three is not listed"
[ "$(json_value out.json 2.disk-size)" = 8388608 ] || fail "not its size"

# Apply, by either, what the other made.
qcow2_img snapshot -a two disk.qcow2
fill disk.qcow2 qcow2 "read -P 1 0 1M" "read -P 2 1M 2M" "read -P 0 3M 5M"
check_image disk.qcow2
qemu-img snapshot -a one disk.qcow2
fill disk.qcow2 qcow2 "read -P 1 0 2M" "read -P 0 2M 6M"
qcow2_img snapshot apply 3 disk.qcow2
fill disk.qcow2 qcow2 "read -P 3 0 4M"
check_image disk.qcow2

# Delete, until there is nothing left of them.
qcow2_img snapshot -d two disk.qcow2
check_image disk.qcow2
qemu-img snapshot -d one disk.qcow2
check_image disk.qcow2
qcow2_img snapshot delete three disk.qcow2
check_image disk.qcow2
[ -z "$(qcow2_img snapshot -l disk.qcow2)" ] || fail "some are left"
fill disk.qcow2 qcow2 "read -P 3 0 4M"

# VM state.
head -c 3000000 /dev/urandom >state
qcow2_img snapshot save-state with disk.qcow2 2>/dev/null && fail "no state"
qcow2_img snapshot save-state with state disk.qcow2
check_image disk.qcow2
expect_output '^1 +with +2.86 MiB ' qemu-img snapshot -l disk.qcow2
qcow2_img snapshot -c without disk.qcow2
qcow2_img snapshot -d without disk.qcow2
qcow2_img snapshot -a with disk.qcow2
qcow2_img snapshot load-state with back disk.qcow2
cmp state back
qcow2_img snapshot load-state 1 - disk.qcow2 | cmp state -
qcow2_img snapshot save-state piped - disk.qcow2 <state
qcow2_img snapshot load-state piped - disk.qcow2 | cmp state -
qcow2_img snapshot -c without disk.qcow2
refuses 'has no VM state' qcow2_img snapshot load-state without no disk.qcow2
[ ! -e no ] || fail "a file for no state"
refuses 'cannot open' qcow2_img snapshot save-state x nowhere disk.qcow2
refuses 'Is a directory' qcow2_img snapshot save-state x . disk.qcow2
ln -s disk.qcow2 link.qcow2
cp disk.qcow2 before.qcow2
refuses 'the image itself' \
    qcow2_img snapshot load-state with link.qcow2 disk.qcow2
refuses 'the image itself' \
    qcow2_img snapshot save-state x disk.qcow2 disk.qcow2
cmp disk.qcow2 before.qcow2
for name in with piped without; do
    qcow2_img snapshot -d "$name" disk.qcow2
done
check_image disk.qcow2

# Sizes: a snapshot brings its own.
qcow2_img snapshot -c small disk.qcow2
qcow2_img resize -q disk.qcow2 16M
qcow2_img snapshot -a small disk.qcow2
expect_output '^virtual size: 8 MiB' qemu-img info disk.qcow2
check_image disk.qcow2

# The backing file has no part in it: it may even be missing.
qemu-img create -q -f qcow2 -u -b missing.raw -F raw over.qcow2 4M
qcow2_img snapshot -c one over.qcow2
qcow2_img snapshot -a one over.qcow2
qcow2_img snapshot -d one over.qcow2

# Names that need care.
qcow2_img snapshot -c 2 disk.qcow2
qcow2_img snapshot -c twin disk.qcow2
qcow2_img snapshot -c twin disk.qcow2 2>err
grep -q "warning: .*the name 'twin' already; snapshot.id=3 " err
refuses "more than one .*the id '3' .*the id '4'.*snapshot.id=ID" \
    qcow2_img snapshot -d twin disk.qcow2
refuses "more than one .*the id '3' .*the id '4'.*snapshot.id=ID" \
    qcow2_img snapshot -a twin disk.qcow2
refuses "no snapshot with the name 'x'$" qcow2_img snapshot -d x disk.qcow2
refuses "no snapshot with the name or id 'x'$" \
    qcow2_img snapshot -a x disk.qcow2
refuses 'name' qcow2_img snapshot -c '' disk.qcow2
refuses '255|name' qcow2_img snapshot -c "$(printf '%300s' x)" disk.qcow2
qcow2_img snapshot -l disk.qcow2 >listed
cat listed
# What has an id alone is not deleted by it, unless that is said.
for word in -d delete; do
    refuses "no snapshot with the name '3'; snapshot.id=ID" \
        qcow2_img snapshot $word 3 disk.qcow2
done
# One by its name, another by its id.
qcow2_img snapshot -c 3 disk.qcow2
refuses "that with the id '3' and the name 'twin', and .* the name '3'" \
    qcow2_img snapshot -a 3 disk.qcow2
qcow2_img snapshot -a snapshot.id=3 disk.qcow2
qcow2_img snapshot -d 3 disk.qcow2
qcow2_img snapshot -d snapshot.id=3 disk.qcow2
expect_output '^4 +twin' qcow2_img snapshot -l disk.qcow2
qcow2_img snapshot delete snapshot.id=4,snapshot.name=twin disk.qcow2
qcow2_img snapshot -d snapshot.name=2 disk.qcow2
qcow2_img snapshot -d small disk.qcow2
[ -z "$(qcow2_img snapshot -l disk.qcow2)" ] || fail "a snapshot is left"

# Refcounts too narrow for it: nothing changes.
qemu-img create -q -f qcow2 -o refcount_bits=1 narrow.qcow2 1M
fill narrow.qcow2 qcow2 "write 0 64k"
cp narrow.qcow2 before.qcow2
refuses 'refcount' qcow2_img snapshot -c one narrow.qcow2
cmp narrow.qcow2 before.qcow2

# Mistakes on the command line.
[ "$(qcow2_img snapshot disk.qcow2)" = "$(qcow2_img snapshot -l disk.qcow2)" ]
refuses 'say what to do' qcow2_img snapshot
refuses 'only one of' qcow2_img snapshot -l -d x disk.qcow2
refuses 'expects a name and one image' qcow2_img snapshot create disk.qcow2
refuses 'expects one image' qcow2_img snapshot -c x
refuses 'is for reading' qcow2_img snapshot -U -c x disk.qcow2
qemu-img create -q raw.raw 1M
[ -z "$(qcow2_img snapshot -l raw.raw)" ] || fail "a raw image has some"
refuses 'raw' qcow2_img snapshot -f raw -c x raw.raw

# An image in use.
hold_open disk.qcow2
refuses 'Failed to get "write" lock. Is another process using the image' qcow2_img snapshot -c x disk.qcow2
refuses 'open for writing' qcow2_img snapshot -l disk.qcow2
qcow2_img snapshot -U -l disk.qcow2 >/dev/null
