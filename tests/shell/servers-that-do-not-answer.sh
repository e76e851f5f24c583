#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Backing files on a server that says nothing, on this server itself, or on one
# that is started anew: nobody else has to wait, and each attempt ends alone.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
if nbdkit_qcow2 --dump-plugin | grep -qx 'qcow2_nbd=no'; then
    echo "no NBD here: not built in"
    exit 77
fi

# overlay FILE SOCKET [EXPORT]: an image whose backing file is an export.
overlay ()
{
    qemu-img create -q -f qcow2 -u -F raw \
        -b "nbd+unix:///${3-}?socket=$2" "$1" 1M
}

mkdir "$tmp/images"
cd "$tmp/images"
qemu-img create -q -f qcow2 plain.qcow2 1M
qemu-io -c 'write -P 5 0 1M' plain.qcow2 >/dev/null
overlay silent.qcow2 "$tmp/silent"
overlay loop.qcow2 "$tmp/socket" loop.qcow2
overlay one.qcow2 "$tmp/socket" two.qcow2
overlay two.qcow2 "$tmp/socket" one.qcow2
overlay remote.qcow2 "$tmp/remote"
printf '%1048576s' x >"$tmp/remote.raw"

# Accepts connections and keeps them, without a word.
cat >"$tmp/silent.py" <<'END'
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(64)
open(sys.argv[1] + ".ready", "w").close()
kept = []
while True:
    kept.append(s.accept())
    open(sys.argv[1] + ".accepted", "w").close()
END
"$nbd_python" "$tmp/silent.py" "$tmp/silent" &
cleanup_fn kill $!
until [ -e "$tmp/silent.ready" ]; do
    sleep 0.1
done

# Without a limit that could be reached: the others do not wait.
start_nbdkit "$tmp/socket" dir=. allow=nbd+unix:/// nbd-timeout=3600
nbd_client plain.qcow2 <<END
import threading, time
def wait():
    try:
        connect("silent.qcow2")
    except nbd.Error:
        pass
for i in range(3):
    threading.Thread(target=wait, daemon=True).start()
while not os.path.exists("$tmp/silent.accepted"):
    time.sleep(0.1)
for i in range(20):
    c = connect("plain.qcow2")
    assert c.pread(1, 4096) == b"\5"
    c.shutdown()
names = []
c = nbd.NBD()
c.set_opt_mode(True)
c.connect_unix(os.environ["uri"].split("socket=")[1])
c.opt_list(lambda name, description: names.append(name))
assert "plain.qcow2" in names and "silent.qcow2" in names, names
os._exit(0)
END
kill_nbdkit

# The limit ends the attempt, and no more attempts follow from it.
start_nbdkit "$tmp/socket" dir=. allow=nbd+unix:/// nbd-timeout=1 2>"$tmp/log"
nbd_client plain.qcow2 <<END
for name in "silent.qcow2", "loop.qcow2", "one.qcow2", "two.qcow2":
    try:
        connect(name)
    except nbd.Error:
        pass
    else:
        raise AssertionError(f"{name} was opened")
    assert connect("plain.qcow2").pread(1, 4096) == b"\5"
END
cat "$tmp/log"
grep -q 'silent.*did not answer in time (the limit is 1 seconds)' "$tmp/log"
stop_nbdkit

# serve_remote: the backing file of remote.qcow2.
serve_remote ()
{
    rm -f "$tmp/remote"
    qemu-nbd --fork -t -r -f raw -k "$tmp/remote" --pid-file="$tmp/remote.pid" \
        "$tmp/remote.raw"
    remote_pid="$(cat "$tmp/remote.pid")"
}
stop_remote ()
{
    kill "$remote_pid" && tail --pid="$remote_pid" -f /dev/null
}

requires qemu-nbd --version
serve_remote
start_nbdkit "$tmp/socket" dir=. allow=nbd+unix:///
hold_client remote.qcow2 <<'END'
assert h.pread(1, 0) == b" "
END
stop_remote
nbd_client remote.qcow2 <<'END'
fails(errno.EIO, h.pread, 1, 0)
END
serve_remote
nbd_client remote.qcow2 <<'END'
assert h.pread(1, 2**20 - 1) == b"x"
END
release_client
stop_remote
