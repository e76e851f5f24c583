/* SPDX-License-Identifier: BSD-3-Clause */
/* escape.c: bytes from an image made safe to show; see escape.h. */
#include "base/escape.h"

#include <stdbool.h>
#include <stdio.h>

const char *
escape_bytes(char out[ESCAPE_SIZE], const void *bytes, size_t nr_bytes)
{
    /* The longest that one byte becomes, and the mark of a cut. */
    enum { ONE = 4, CUT = 3 };
    const unsigned char *in = bytes;
    size_t len = 0;

    for (size_t i = 0; i < nr_bytes; i++) {
        if (len + ONE + CUT >= ESCAPE_SIZE) {
            memcpy(out + len, "...", CUT);
            len += CUT;
            break;
        }
        if (in[i] >= 0x20 && in[i] < 0x7f && in[i] != '\\')
            out[len++] = in[i];
        else
            len += snprintf(out + len, ONE + 1, "\\x%02x", in[i]);
    }
    out[len] = '\0';
    return out;
}

static bool
is_continuation(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* How many bytes at s are to be replaced; 0: the *nr_kept first ones stay. */
static size_t
controls_at(const unsigned char *s, size_t *nr_kept)
{
    size_t len = s[0] < 0xc2 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3
                 : s[0] < 0xf5 ? 4 : 1;

    *nr_kept = 1;
    if (s[0] < 0x20 || (s[0] >= 0x7f && s[0] < 0xa0))
        return 1;
    if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)
        return 2;
    for (size_t i = 1; i < len; i++)
        if (!is_continuation(s[i]))
            return 0;
    *nr_kept = len;
    return 0;
}

void
escape_controls(char *text, size_t size)
{
    size_t i = 0, len = strlen(text), nr_kept;

    while (text[i]) {
        unsigned char *s = (unsigned char *)text + i;
        size_t nr = controls_at(s, &nr_kept), rest;
        char digits[2 * 4 + 1];

        if (nr == 0) {
            i += nr_kept;
            continue;
        }
        snprintf(digits, sizeof digits, nr == 2 ? "\\x%02x\\x%02x"
                                                : "\\x%02x", s[0], s[1]);
        if (i + 4 * nr >= size) {
            text[i] = '\0';
            return;
        }
        rest = len - i - nr;
        if (i + 4 * nr + rest >= size)
            rest = size - 1 - i - 4 * nr;
        memmove(text + i + 4 * nr, text + i + nr, rest);
        memcpy(text + i, digits, 4 * nr);
        i += 4 * nr;
        len = i + rest;
        text[len] = '\0';
    }
}

/* Does s mean itself to every shell? */
static bool
is_plain_word(const char *s)
{
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789/._-+:@%,") == strlen(s);
}

bool
escape_for_shell(char *out, size_t size, const char *s)
{
    const char *quote = is_plain_word(s) ? "" : "'";
    size_t len = snprintf(out, size, "%s", quote);

    for (; *s; s++) {
        if (*s < ' ' || *s > '~')
            return false;
        if (len < size)
            len += snprintf(out + len, size - len, "%s%c",
                            *s == '\'' ? "'\\'" : "", *s);
    }
    if (len < size)
        len += snprintf(out + len, size - len, "%s", quote);
    return len < size;
}
