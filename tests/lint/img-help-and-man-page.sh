#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# 'qcow2-img VERB --help' and the man page know the same verbs and options.

. ./functions.sh
requires qcow2_img --version
pod="$abs_top_srcdir/man/qcow2-img.pod"

# agree WHAT: compares the lists $tmp/page and $tmp/program.
agree ()
{
    [ -s "$tmp/page" ] || fail "the man page has no $1"
    diff -u "$tmp/page" "$tmp/program" \
        || fail "the man page (-) and qcow2-img (+) have different $1"
}

# section NAME: the text of one =head1.
section ()
{
    awk -v name="=head1 $1" '/^=head1/ { on = $0 == name } on' "$pod"
}

# verb_section NAME: the text of one =head2 of VERBS.
verb_section ()
{
    section VERBS | awk -v name="=head2 $1" '/^=head2/ { on = $0 == name } on'
}

qcow2_img --help | sed -nE 's/^  ([a-z]+) .*/\1/p' >"$tmp/program"
section VERBS | sed -nE 's/^=head2 //p' >"$tmp/page"
agree verbs
verbs="$(cat "$tmp/page")"
section SYNOPSIS | sed -nE 's/^ qcow2-img ([a-z]+) .*/\1/p' >"$tmp/page"
agree "verbs in the synopsis"

# The options of a verb are those in its section, and those of COMMON OPTIONS
# that its section names. Both forms of an option count.
common="$(section 'COMMON OPTIONS' | sed -nE 's/^=item B<(-[^> =]+).*/\1/p')"
for verb in $verbs; do
    qcow2_img "$verb" --help \
        | sed -nE -e 's/^  (-[a-zA-Z]), (--[a-z-]+).*/\1\n\2/p;t' \
                  -e 's/^  (-[a-zA-Z]) .*/\1/p;t' \
                  -e 's/^      (--[a-z-]+).*/\1/p' \
        | grep -vxE -e '-h|--help' >"$tmp/all"
    # What has two forms in common options counts as the first one.
    grep -vxE -e '--(format|quiet|progress|force-share|cache)' "$tmp/all" \
        | LC_ALL=C sort -u >"$tmp/program"
    verb_section "$verb" \
        | grep '^=item B<-' | grep -oE 'B<-[^> =]+' | sed 's/B<//' \
        >"$tmp/own" || :
    verb_section "$verb" | sed -nE '/^(Here|Options explained)/,/\.$/p' \
        | grep -oE 'I<-[^>]+>' | sed -E 's/I<(.*)>/\1/' >"$tmp/named"
    while read -r option; do
        grep -qxe "$option" <<<"$common" \
            || fail "$verb: $option is not explained above"
    done <"$tmp/named"
    LC_ALL=C sort -u "$tmp/own" "$tmp/named" >"$tmp/page"
    agree "options of $verb"
    qcow2_img "$verb" --help | grep -A1 '^Example:$' \
        | grep -q "^    qcow2-img $verb" || fail "$verb has no example"
    qcow2_img "$verb" --help | awk 'length > 80 { print; bad = 1 }
                                    END { exit bad }' \
        || fail "the help of $verb is too wide"
done

qcow2_img create -o help | sed -nE 's/^  ([a-z0-9_]+)=.*/\1/p' \
    | LC_ALL=C sort >"$tmp/program"
verb_section create | sed -nE 's/^=item (C<.*)/\1/p' \
    | grep -oE 'C<[a-z0-9_]+>' | sed -E 's/C<(.*)>/\1/' \
    | LC_ALL=C sort >"$tmp/page"
agree "options of new images"
