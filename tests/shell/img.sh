# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# img.sh: for tests of qcow2-img. Source it after functions.sh:
#
#     . "$srcdir/shell/img.sh"

requires qemu-img --version
requires qcow2_img --version
export TZ=UTC

# same_json THEIRS OURS [KEY...]
# Two files with the same JSON, these keys aside, and those that qemu-img does
# not have.
ours_alone="verdict header file-size disk-size compressed problems"
same_json ()
{
    # shellcheck disable=SC2086  # one word each
    python3 - "$@" $ours_alone <<'END' || fail "$1 and $2 differ"
import difflib, json, sys

def without(value, keys):
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items()
                if k not in keys}
    if isinstance(value, list):
        return [without(v, keys) for v in value]
    return value

def read(path):
    with open(path) as f:
        return without(json.load(f), sys.argv[3:])

theirs = read(sys.argv[1])
ours = read(sys.argv[2])
if theirs != ours:
    print("\n".join(difflib.unified_diff(
        json.dumps(theirs, sort_keys=True, indent=1).split("\n"),
        json.dumps(ours, sort_keys=True, indent=1).split("\n"),
        "theirs", "ours", lineterm="")))
    sys.exit(1)
END
}

# json_value FILE KEY[.KEY...]
# Prints one value of a file of JSON; a key can be an index.
json_value ()
{
    python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[int(key) if isinstance(value, list) else key]
print(json.dumps(value) if isinstance(value, (bool, type(None), dict, list))
      else value)' "$@"
}

# expect_status STATUS COMMAND [ARG...]
expect_status ()
{
    local expected="$1" status=0
    shift
    "$@" || status=$?
    [ "$status" -eq "$expected" ] \
        || fail "'$*' ended with status $status, not $expected"
}

# refuses PATTERN COMMAND [ARG...]
# The command fails with one line on stderr that matches.
refuses ()
{
    local pattern="$1" status=0
    shift
    "$@" >/dev/null 2>"$tmp/refusal" || status=$?
    cat "$tmp/refusal"
    if [ "$status" -eq 0 ] || [ "$status" -ge 128 ]; then
        fail "'$*' ended with status $status"
    fi
    grep -Eq -- "$pattern" "$tmp/refusal" \
        || fail "'$*' did not complain about '$pattern'"
    [ "$(grep -Evc "^Try 'q(cow2|emu)-img" "$tmp/refusal")" -eq 1 ] \
        || fail "'$*' complained in more than one line"
}

# fill IMAGE FORMAT COMMAND...
# Runs commands of qemu-io.
fill ()
{
    local image="$1" format="$2" args=()
    shift 2
    for command in "$@"; do
        args+=(-c "$command")
    done
    if ! qemu-io -t unsafe -f "$format" "${args[@]}" "$image" \
         >"$tmp/qemu-io" 2>&1 \
       || grep -qiE 'failed|error' "$tmp/qemu-io"; then
        cat "$tmp/qemu-io"
        fail "qemu-io ${args[*]} $image"
    fi
}

# hold_open IMAGE [ARG...]
# Keeps it open, in a qemu-io with these arguments, until `release`.
hold_open ()
{
    local tries
    rm -f "$tmp/held"
    stdbuf -oL qemu-io -f qcow2 "${@:2}" -c 'read 0 512' -c 'sleep 100000' "$1" \
        >"$tmp/held" 2>&1 &
    holder=$!
    cleanup_fn release
    for ((tries = 0; tries < 600; tries++)); do
        [ ! -s "$tmp/held" ] || return 0
        sleep 0.1
    done
    fail "qemu-io did not open $1"
}

release ()
{
    [ -n "$holder" ] || return 0
    kill -9 "$holder"
    wait "$holder" || :
    holder=
}
holder=
