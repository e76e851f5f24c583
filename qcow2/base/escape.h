/* SPDX-License-Identifier: BSD-3-Clause */
/* escape.h: bytes from an image made safe to show in a message. */
#ifndef QCOW2_ESCAPE_H
#define QCOW2_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Longer names are cut: the rest of a message must still fit. */
enum { ESCAPE_SIZE = 256 };

/* Copies bytes to out, terminated, with everything but printable ASCII as
 * \xNN; what does not fit is replaced by "...". Returns out.
 */
const char *escape_bytes(char out[ESCAPE_SIZE], const void *bytes,
                         size_t nr_bytes);

/* Replaces control characters in text, a terminated string in a buffer of
 * size bytes, by \xNN in place: those of ASCII, DEL, and the C1 ones, as
 * bytes or in UTF-8. Everything else stays, so that doing it again changes
 * nothing. What no longer fits is cut off at the end.
 */
void escape_controls(char *text, size_t size);

/* Writes s to out, a buffer of size bytes, as one word for a shell: in single
 * quotes where it needs them. false if s has anything but printable ASCII, or
 * does not fit.
 */
bool escape_for_shell(char *out, size_t size, const char *s);

/* The string s escaped; lives as long as the enclosing block. */
#define ESCAPED(s)                                                      \
    escape_bytes((char[ESCAPE_SIZE]){ 0 }, (s), strlen(s))

#endif /* QCOW2_ESCAPE_H */
