/* SPDX-License-Identifier: BSD-3-Clause */
/* escape.c: bytes from an image made safe to show; see escape.h. */
#include "base/escape.h"

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
