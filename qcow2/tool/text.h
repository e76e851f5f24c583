/* SPDX-License-Identifier: BSD-3-Clause */
/* text.h: UTF-8 in names. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Length of the UTF-8 sequence that the terminated string s begins with; 0
 * if it is none.
 */
size_t text_utf8_length(const unsigned char *s, uint32_t *code_point);

#endif /* TEXT_H */
