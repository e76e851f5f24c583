#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Snapshots whose names no client can say, or that share one name, can be
# had by their ids, and do no harm to a terminal.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires nbdinfo --version
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 64k
for name in twin twin ESCAPE NOTUTF fine; do
    qemu-img snapshot -c $name disk.qcow2
done
LC_ALL=C sed -i 's/ESCAPE/\x1b[31m!/; s/NOTUTF/\xc3(\xff\xfe\x80\x80/' disk.qcow2

nbdkit_qcow2 -U - disk.qcow2 --run 'nbdinfo --list "$uri"' >list
grep '^export=' list >names
diff names - <<'END'
export="":
export="@1":
export="@2":
export="@3":
export="@4":
export="@fine":
END

start_nbdkit "$tmp/socket" disk.qcow2 2>log
nbd_client <<END
for name in "@1", "@2", "@3", "@4":
    assert connect(name).get_size() == 65536
for name in "@twin", "@\x1b[31mx":
    fails(errno.ENOENT, connect, name)
END
stop_nbdkit
cat -v log
grep -q 'more than one.*twin.*id:ID means' log
if LC_ALL=C grep -q '[[:cntrl:]]' log; then
    fail "the log has control characters"
fi

# One whose name is the id of another, and one whose name begins as a word
# that says which it is: each is listed by a word that means just it.
qemu-img create -q -f qcow2 crossed.qcow2 64k
for name in two 1 id:1; do
    qemu-img snapshot -c $name crossed.qcow2
done
nbdkit_qcow2 -U - crossed.qcow2 --run 'nbdinfo --list "$uri"' >list
grep '^export=' list >names
diff names - <<'END'
export="":
export="@two":
export="@name:1":
export="@name:id:1":
END
start_nbdkit "$tmp/socket" crossed.qcow2
nbd_client <<END
for name in "@name:1", "@name:id:1", "@two", "@id:1", "@3":
    assert connect(name).get_size() == 65536
fails(errno.ENOENT, connect, "@1")
END
stop_nbdkit
