#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every form of a name that qemu-img takes means the same here, in every verb,
# or is refused: none is silently taken for the name of a local file.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires nbdkit memory --version
cd "$tmp"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"

head -c 2M /dev/urandom >s.raw
qemu-img convert -q -f raw -O qcow2 s.raw s.qcow2
qemu-img create -q -f qcow2 -b s.raw -F raw over.qcow2
head -c 2M /dev/urandom >other.raw

# says WORDS COMMAND [ARG...]: exits with 1 and says WORDS.
says ()
{
    expect_status 1 "${@:2}" 2>err
    grep -qF -- "$1" err || fail "'${*:2}' says: $(cat err)"
}

# --- Protocols ---------------------------------------------------------------

protocols='blkdebug::x blkverify:x:y fat:x ftp://h/x gluster://h/v/x http://h/x
https://h/x iscsi://h/t/1 nfs://h/x null-co:// nvme://0000:01:00.0/1 quorum:x
rbd:pool/x sheepdog:x ssh://h/x tftp://h/x vxhs://h/x other://h/x'
true >err
before=$(ls -A)
for name in $protocols; do
    says "./$name names a local file" qcow2_img info "$name"
    says "./$name names a local file" qcow2_img convert s.raw "$name"
done
for name in rbd:pool/x http://h/x other://h/x; do
    for verb in amend bench chain check commit info map measure resize; do
        args=()
        case $verb in
        amend) args=(-o compat=1.1 "$name") ;;
        resize) args=("$name" 1M) ;;
        *) args=("$name") ;;
        esac
        says "./$name names a local file" qcow2_img $verb "${args[@]}"
    done
    says "./$name names" qcow2_img snapshot -l "$name"
    says "./$name names" qcow2_img rebase -u -b s.raw -F raw "$name"
    says "./$name names" qcow2_img rebase -u -b "$name" -F raw over.qcow2
    says "./$name names" qcow2_img commit -b "$name" over.qcow2
    says "./$name names" qcow2_img map --source-backing "$name" over.qcow2
    says "./$name names" qcow2_img create "$name" 1M
    says "./$name names" qcow2_img create -f qcow2 -b "$name" -F raw x
    says "./$name names" qcow2_img create -f qcow2 \
        -o "backing_file=$name,backing_fmt=raw" x
    says "./$name names" qcow2_img convert "$name" x
    says "./$name names" qcow2_img convert s.raw "$name"
    says "./$name names" qcow2_img convert -O qcow2 -B "$name" -F raw \
        over.qcow2 x
    says "./$name names" qcow2_img dd if="$name" of=x
    says "./$name names" qcow2_img dd if=s.raw of="$name"
    expect_status 2 qcow2_img compare "$name" s.raw 2>err
    expect_status 2 qcow2_img compare s.raw "$name" 2>err
done
[ "$before" = "$(ls -A)" ] || fail "files were made: $(ls -A)"

# --- Files -------------------------------------------------------------------

cp s.raw rbd:x
cp s.raw nbd:unix:y
for name in ./rbd:x file:rbd:x file:./rbd:x "file:$PWD/rbd:x" \
            host_device:rbd:x file:nbd:unix:y ./nbd:unix:y; do
    qcow2_img compare -f raw -F raw s.raw "$name"
    qcow2_img convert -f raw -O raw "$name" file:out:1
    cmp s.raw ./out:1
done
qcow2_img create -f qcow2 -b file:s.raw -F raw made.qcow2
expect_output '^backing file: s.raw' qemu-img info made.qcow2
# Names are printed as they are.
says 'qcow2-img: backing=y: cannot open' qcow2_img info backing=y
says 'qcow2-img: qemu-img rebase allow=z: cannot open' \
    qcow2_img map 'qemu-img rebase allow=z'
for verb in info check map; do
    says 'the file name is empty' qcow2_img $verb ''
done
says 'the file name is empty' qcow2_img create '' 1M
says 'the file name is empty' qcow2_img convert s.raw ''
says 'the file name is empty' qcow2_img convert s.raw file:
says "there is no directory 'away/deep'" qcow2_img create away/deep/x 1M
says "there is no directory 'away'" qcow2_img convert s.raw away/x

# --- Links that lead nowhere -------------------------------------------------

mkdir dir
ln -s dir/made.raw link.raw
ln -s link.raw link2.raw
ln -s dir/made.qcow2 link.qcow2
ln -s away/x lost
qcow2_img convert -f raw -O raw s.raw link2.raw
cmp s.raw dir/made.raw
# Relative names start where the link is, as with QEMU.
qcow2_img create -q -f qcow2 -u -b s.raw -F raw link.qcow2 2M
[ -L link.qcow2 ] && [ -f dir/made.qcow2 ] || fail "the link was replaced"
says 'No such file' qcow2_img create lost 1M
# What was not finished is removed, the link is not.
rm dir/made.raw
expect_status 1 qcow2_img convert -f raw -O qcow2 -o preallocation=full,size=8E \
    s.raw link2.raw 2>err
[ -L link2.raw ] && [ ! -e dir/made.raw ] || fail "an unfinished file is left"

# --- Options -----------------------------------------------------------------

# both FORMAT LIST JSON: qemu-img and we read the same by both.
both ()
{
    local t args json
    json="json:$(tr -d ' \n' <<<"$3")"
    # (There info does not take another backing file.)
    [[ "$2" = *backing* ]] || for t in qemu-img qcow2_img; do
        $t info --image-opts "$2" >info.list
        $t info "$json" >info.json
        grep -x "file format: $1" info.list || fail "$t: $(cat info.list)"
        grep -x "file format: $1" info.json || fail "$t: $(cat info.json)"
    done
    for args in "--image-opts $2" "$json"; do
        # shellcheck disable=SC2086
        qcow2_img convert -O raw $args out.raw
        # shellcheck disable=SC2086
        qemu-img convert -O raw $args theirs.raw
        cmp out.raw theirs.raw
    done
}
both qcow2 driver=qcow2,file.driver=file,file.filename=s.qcow2 \
    '{"driver":"qcow2","file":{"driver":"file","filename":"s.qcow2"}}'
both qcow2 file.filename=s.qcow2 '{"file.filename":"s.qcow2"}'
both qcow2 driver=qcow2,file.filename=over.qcow2 \
    '{"driver":"qcow2","file.filename":"over.qcow2"}'
both raw driver=raw,file.filename=s.qcow2,cache.direct=off,discard=unmap \
    '{"driver":"raw","file":{"filename":"s.qcow2"},"cache":{"direct":false}}'
both qcow2 driver=qcow2,file.filename=over.qcow2,backing.driver=raw,backing.file.filename=other.raw \
    '{"driver":"qcow2","file":{"driver":"file","filename":"over.qcow2"},
      "backing":{"driver":"raw","file":{"driver":"file",
      "filename":"other.raw"}}}'
cmp out.raw other.raw
both qcow2 driver=qcow2,file.filename=s.qcow2 \
    '{"driver":"qcow2","file":{"filename":"s.qcow2"},"backing":null}'
cp s.raw 'a,b=c'
qcow2_img compare --image-opts driver=raw,file.filename=a,,b=c \
    driver=raw,file.filename=s.raw
qcow2_img convert -n --target-image-opts -f raw s.raw \
    driver=raw,file.filename=other.raw
cmp s.raw other.raw
says '--target-image-opts goes with -n' qcow2_img convert \
    --target-image-opts s.raw driver=raw,file.filename=x

# option WORDS LIST
option () { says "$1" qcow2_img info --image-opts "$2"; }
option "'filename' is missing" driver=file
option "'file.filename' is missing" driver=qcow2
option "driver 'rbd' is not supported" driver=rbd,pool=p
option "driver 'vmdk' is not supported" driver=vmdk,file.filename=x
option "driver 'ssh' is not" driver=raw,file.driver=ssh,file.host=h,file.path=x
option "option 'size' is not" driver=qcow2,size=512,file.filename=s.raw
option "option 'offset' is not" driver=qcow2,offset=512,file.filename=s.raw
option "names a node" driver=qcow2,file=node
option "names a node" driver=qcow2,file.filename=s.qcow2,backing=node
option "no backing file" driver=raw,file.filename=s.raw,backing.file.filename=x
option "is there twice" file.filename=s.raw,file.filename=s.raw
option "can only be off" driver=raw,file.filename=s.raw,force-share=on
option "either server.type" driver=nbd
option "port must be" driver=nbd,host=h,port=x
says 'it is not JSON' qcow2_img info json:x
says 'not JSON' qcow2_img info 'json:{"driver":"raw","driver":"qcow2"}'
says 'must be a string' qcow2_img info 'json:{"driver":["raw"]}'
deep=$(printf '{"a":%.0s' {1..20})1$(printf '}%.0s' {1..20})
says 'nested too deeply' qcow2_img info "json:$deep"
many=$(printf 'a%d=1,' {1..100})
option 'more than' "$many"
says 'is given by driver=' qcow2_img info -f raw \
    --image-opts driver=raw,file.filename=s.raw
says 'is not the format' qcow2_img info -f raw \
    'json:{"driver":"qcow2","file.filename":"s.qcow2"}'

# --- NBD ---------------------------------------------------------------------

"$tool" info nbd://localhost:1/ 2>err || :
if grep -q 'not built in' err; then exit 0; fi

# nbdkit's info plugin exports the name that the client asks for.
mkdir 'so:ck'
sock="$PWD/so:ck/a b%"
nbdkit -f -P pid -U "$sock" info mode=exportname &
cleanup_fn kill $!
for ((tries = 0; tries < 600; tries++)); do
    [ ! -s pid ] || break
    sleep 0.1
done
[ -s pid ] || fail "nbdkit did not start"
# exports NAME URI-OR-NAME [OPTION...]
exports ()
{
    qcow2_img dd "${@:3}" -f raw if="$2" of=got
    [ "$(tr -d '\0' <got)" = "$1" ] || fail "$2: $(cat got)"
}
exports 'x/y z?#%41' "nbd:unix:$sock:exportname=x/y z?#%41"
exports '' "nbd:unix:$sock"
exports 'q&w=é' "nbd:unix:$sock:exportname=q&w=é"
qcow2_img convert --image-opts \
    "driver=nbd,server.type=unix,server.path=$sock,export=p,,q" got
[ "$(tr -d '\0' <got)" = p,q ] || fail "$(cat got)"
qcow2_img convert --image-opts \
    "driver=raw,file.driver=nbd,file.path=$sock,file.export=old" got
[ "$(tr -d '\0' <got)" = old ] || fail "$(cat got)"
says 'write nbd:HOST:PORT' qcow2_img info nbd:localhost
says 'the port must be' qcow2_img info nbd:localhost:
says 'the port must be' qcow2_img info nbd:localhost:70000
says 'host of the NBD server is missing' qcow2_img info nbd::10809
says 'socket of the NBD server is missing' qcow2_img info nbd:unix:
says 'nbd://localhost:1/n' qcow2_img info nbd:localhost:1:exportname=n
says 'nbd://[::1]:1' qcow2_img info 'nbd:[::1]:1'
says 'nbd://localhost:1/n' qcow2_img info nbd+tcp://localhost:1/n
