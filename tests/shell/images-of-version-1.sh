#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Images of version 1, "qcow", that QEMU makes are read, served and copied as
# QEMU reads them, and are never written.

. ./functions.sh
. "$srcdir/shell/img.sh"
. "$srcdir/shell/nbd.sh"
qemu-img create -q -f qcow "$tmp/probe" 1M || skip "qemu-img has no qcow"

cd "$tmp"
content=("write -P 1 64k 192k" "write -P 2 300k 1k" "write -P 3 3M 100k"
         "write -P 4 6M 64k" "write -P 5 5000k 512")
qemu-img create -q -f raw base.raw 7M
fill base.raw raw "${content[@]}"
qemu-img convert -O qcow base.raw plain.qcow
# It says that this failed, but it did not.
qemu-img convert -c -O qcow base.raw packed.qcow \
    || qemu-img compare -q base.raw packed.qcow
fill packed.qcow qcow "write -P 9 100k 64k"
qemu-img create -q -f qcow -b base.raw -F raw over.qcow 8M
fill over.qcow qcow "write -P 7 1M 300k" "write -P 8 301k 1k"
for name in plain packed over; do
    qemu-img create -q -f qcow2 -b $name.qcow -F qcow on-$name.qcow2 9M
    fill on-$name.qcow2 qcow2 "write -P 6 2M 100k"
done
sha256sum ./* >before

# What is read is what QEMU reads, by whatever way.
images=(plain.qcow packed.qcow over.qcow on-{plain,packed,over}.qcow2)
for image in "${images[@]}"; do
    qemu-img convert -O raw "$image" theirs.raw
    qcow2_img convert -O raw "$image" ours.raw
    cmp theirs.raw ours.raw
    qcow2_img convert -c -O qcow2 "$image" ours.qcow2
    qemu-img compare -q theirs.raw ours.qcow2
    check_image ours.qcow2
    qcow2_img compare -q theirs.raw "$image"
    qcow2_img dd if="$image" of=ours.raw bs=64k >/dev/null
    cmp theirs.raw ours.raw
    qcow2_img bench -q -c 50 "$image" 2>bench || { cat bench; fail bench; }
    start_nbdkit "$tmp/socket" -r "$image"
    nbd_client <<'END'
want = open("theirs.raw", "rb").read()
at = 0
while at < len(want):
    n = min(1 << 20, len(want) - at)
    assert h.pread(n, at) == want[at:at + n], at
    at += n
END
    stop_nbdkit
done
qcow2_img convert -f qcow --source-backing-format=raw -O raw over.qcow ours.raw
qcow2_img compare -f raw -F qcow ours.raw over.qcow >/dev/null
qcow2_img chain on-over.qcow2 >chain
[ "$(grep -oE '^ *(raw|qcow2?),' chain | tr -d ' \n')" = "raw,qcow,qcow2," ] \
    || { cat chain; fail "chain"; }

# An overlay of ours: QEMU takes the format that it declares.
qcow2_img create -q -f qcow2 -b plain.qcow -F qcow ours-on-it.qcow2
qemu-img info ours-on-it.qcow2 | grep -q '^backing file format: qcow$'
qemu-img compare -q ours-on-it.qcow2 base.raw
qcow2_img rebase -b over.qcow -F qcow ours-on-it.qcow2
qemu-img compare -q ours-on-it.qcow2 base.raw
qcow2_img convert -B plain.qcow -F qcow -O qcow2 on-plain.qcow2 shared.qcow2
qemu-img compare -q shared.qcow2 on-plain.qcow2
qcow2_img convert -O raw \
    --image-opts driver=qcow,file.driver=file,file.filename=packed.qcow x.raw
qemu-img compare -q x.raw packed.qcow

# There is nothing to check, and QEMU says so, too.
expect_status 63 qemu-img check plain.qcow 2>theirs
expect_status 63 qcow2_img check plain.qcow 2>ours
expect_status 63 qcow2_img check -f qcow -r all plain.qcow 2>>ours
sort -u ours | sed 's/^.*: //' | diff - <(sed 's/^.*: //' theirs)

# What would write is refused, and names the way out.
while read -r verb; do
    # shellcheck disable=SC2086  # words
    refuses 'qcow \(version 1\) is read, but not written.*convert' \
        qcow2_img $verb
done <<'END'
resize plain.qcow +1M
snapshot -c one plain.qcow
amend -f qcow -o compat=1.1 plain.qcow
rebase -f qcow -b base.raw -F raw over.qcow
commit over.qcow
commit on-plain.qcow2
convert -n -O qcow2 --target-image-opts base.raw driver=qcow,file.filename=plain.qcow
END
refuses "then 'qemu-img convert -f raw -O qcow' makes one" \
    qcow2_img convert -O qcow base.raw x.qcow
refuses "then 'qemu-img convert -f raw -O qcow' makes one" \
    qcow2_img create -f qcow x.qcow 1M
start_nbdkit "$tmp/socket" plain.qcow
nbd_client <<'END'
assert h.is_read_only()
END
stop_nbdkit

# Encrypted, and with a backing file whose format nobody says.
qemu-img create -q --object secret,id=s,data=abc -f qcow \
    -o encrypt.format=aes,encrypt.key-secret=s secret.qcow 1M
refuses 'encrypted \(AES\).*format qcow' qcow2_img convert secret.qcow x.raw
qcow2_img info secret.qcow | grep -q '^encrypted: yes$'
qemu-img create -q -f qcow -b plain.qcow -F qcow over-image.qcow
refuses 'looks like qcow.*--source-backing-format' \
    qcow2_img convert over-image.qcow x.raw
qcow2_img convert --source-backing-format=qcow over-image.qcow x.raw
qemu-img compare -q x.raw over-image.qcow
qemu-img create -q -f qcow2 -b over-image.qcow -F qcow higher.qcow2
refuses 'only a qcow2 image made of the one above it could say it' \
    qcow2_img convert higher.qcow2 x.raw

# Names in it are subject to the path policy.
mkdir elsewhere
cp base.raw elsewhere/
qemu-img create -q -f qcow -b "$tmp/elsewhere/base.raw" -F raw elsewhere/in.qcow
mkdir here
mv elsewhere/in.qcow here/
refuses 'allow=' qcow2_img convert here/in.qcow x.raw
qcow2_img convert --allow="$tmp/elsewhere" here/in.qcow x.raw
cmp x.raw base.raw

rm -f ours* theirs*
sha256sum --quiet -c before
