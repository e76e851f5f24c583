# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# qcow2-img.bash: completion of verbs, options and file names. What there is
# comes from the program's own help.

_qcow2_img ()
{
    local program="${COMP_WORDS[0]}" word="${COMP_WORDS[COMP_CWORD]}"
    local before="${COMP_WORDS[COMP_CWORD-1]}" words=

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="$("$program" --help 2>/dev/null \
            | sed -nE 's/^  ([a-z]+) .*/\1/p')"
    elif [ "${COMP_WORDS[1]}" = snapshot ] && [ "$COMP_CWORD" -eq 2 ] \
         && [[ "$word" != -* ]]; then
        words="list create apply delete save-state load-state"
    elif [[ "$word" == -* ]]; then
        words="$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null \
            | sed -nE 's/^  (-.)?,? *(--[a-z-]+)?.*/\1 \2/p')"
    else
        case "$before" in
            -f | -F | -O) words="qcow2 raw" ;;
            --output) words="human json" ;;
            -r) [ "${COMP_WORDS[1]}" != check ] || words="leaks all" ;;
            --preallocation) words="off metadata falloc full" ;;
        esac
    fi
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}
complete -o default -F _qcow2_img qcow2-img
