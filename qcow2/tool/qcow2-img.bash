# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# qcow2-img.bash: completion of verbs, options, their values, snapshots and
# file names. Verbs and options come from the program's own help.

# The snapshots of the images among the words.
_qcow2_img_snapshots ()
{
    local word

    for word in "${COMP_WORDS[@]:2}"; do
        [ -f "$word" ] || continue
        "${COMP_WORDS[0]}" snapshot -l -U "$word" 2>/dev/null \
            | awk '$1 ~ /^[0-9]+$/ { print $2 }'
    done
}

# _qcow2_img_values VERB OPTION: what may follow it
_qcow2_img_values ()
{
    case "$1 $2" in
        *" -f" | *" -F" | *" -O" | *"-format")
            echo "qcow2 raw" ;;
        *" --output") echo "human json" ;;
        "bench -i") echo "threads native io_uring" ;;
        "check -r" | "check --repair") echo "leaks all" ;;
        *" --preallocation" | *" preallocation")
            echo "off metadata falloc full" ;;
        *" -t" | *" -T" | *" --cache" | *"-cache")
            echo "writeback none writethrough directsync unsafe" ;;
        "snapshot -a" | "snapshot -d" | *" -l" | "snapshot apply" \
            | "snapshot delete") _qcow2_img_snapshots ;;
        "create -o" | "convert -o" | "amend -o" | "measure -o")
            "${COMP_WORDS[0]}" create -f qcow2 -o help 2>/dev/null \
                | sed -nE 's/^ *([a-z_]+)=.*/\1=/p' ;;
        *" compat") echo "0.10 1.1" ;;
        *" compression_type") echo "zlib zstd" ;;
        *" lazy_refcounts" | *" extended_l2") echo "on off" ;;
        *" refcount_bits") echo "1 2 4 8 16 32 64" ;;
        *" backing_fmt") echo "qcow2 raw" ;;
    esac
}

_qcow2_img ()
{
    local program="${COMP_WORDS[0]}" word="${COMP_WORDS[COMP_CWORD]}"
    local before="${COMP_WORDS[COMP_CWORD-1]}" verb="${COMP_WORDS[1]-}"
    local words="" head=""

    COMPREPLY=()
    # bash splits at '=', by COMP_WORDBREAKS, unless it was told otherwise.
    if [ "$word" = "=" ]; then
        word=""
    elif [ "$before" = "=" ]; then
        before="${COMP_WORDS[COMP_CWORD-2]}"
    elif [[ "$word" == *=* ]]; then
        head="${word%%=*}="
        before="${word%%=*}"
        word="${word#*=}"
    fi
    before="${before##*,}"
    if [ "$COMP_CWORD" -eq 1 ] \
       || { [ "$verb" = help ] && [ "$COMP_CWORD" -eq 2 ]; }; then
        words="$("$program" --help 2>/dev/null \
            | sed -nE 's/^  ([a-z]+) .*/\1/p')"
    elif [ "$verb" = snapshot ] && [ "$COMP_CWORD" -eq 2 ] \
         && [[ "$word" != -* ]]; then
        words="list create apply delete save-state load-state"
    elif [[ "$word" == -* ]]; then
        words="$("$program" "$verb" --help 2>/dev/null \
            | sed -nE 's/^  (-.)?,? *(--[a-z-]+)?.*/\1 \2/p')"
    else
        words="$(_qcow2_img_values "$verb" "$before")"
    fi
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -P "$head" -W "$words" -- "$word")
    fi
    # No blank behind NAME=.
    [[ "${COMPREPLY[0]-}" != *= ]] || compopt -o nospace 2>/dev/null || :
}
complete -o default -F _qcow2_img qcow2-img
