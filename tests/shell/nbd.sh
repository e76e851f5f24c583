# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# nbd.sh: NBD clients. Source it after functions.sh:
#
#     . "$srcdir/shell/nbd.sh"

# The python3 in front may not be the one that libnbd was installed for.
for nbd_python in python3 /usr/bin/python3; do
    if "$nbd_python" -c 'import nbd' 2>/dev/null; then
        break
    fi
done
requires "$nbd_python" -c 'import nbd'

# nbd_client [EXPORT] <SCRIPT
# Runs the Python script on stdin, with a connection h to an export (by
# default the default export) of the server at $uri. In it:
# connect(EXPORT)             makes another connection
# fails(ERRNO, FUNCTION, …)   the call must fail in this way
nbd_client ()
{
    uri="$uri" export="${1-}" "$nbd_python" -c '
import errno, nbd, os, sys

def connect(export=os.environ["export"]):
    c = nbd.NBD()
    c.add_meta_context("base:allocation")
    c.set_export_name(export)
    c.connect_unix(os.environ["uri"].split("socket=")[1])
    return c

def fails(errnum, function, *args):
    try:
        function(*args)
    except nbd.Error as e:
        assert e.errnum == errnum, e
    else:
        raise AssertionError(f"{function} did not fail")

h = connect()
exec(compile(sys.stdin.read(), "script", "exec"))
'
}

# hold_client [EXPORT] <SCRIPT
# Like nbd_client, but returns when the script has run, and keeps its
# connections until release_client.
hold_client ()
{
    local script
    script="$(cat)"
    rm -f "$tmp/held" "$tmp/leave"
    mkfifo "$tmp/held" "$tmp/leave"
    nbd_client "$@" <<END &
$script
print("held", file=open("$tmp/held", "w"), flush=True)
open("$tmp/leave").read()
END
    held_client=$!
    read -r -t 300 <>"$tmp/held" || fail "the client did not get that far"
}

release_client ()
{
    echo >"$tmp/leave"
    wait "$held_client"
}
