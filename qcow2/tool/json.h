/* SPDX-License-Identifier: BSD-3-Clause */
/* json.h: what the verbs need besides jansson itself. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include <stdint.h>

/* A name as a JSON string; what is not UTF-8 becomes U+FFFD. NULL: null. */
json_t *json_name(const char *name);

/* JSON has no unsigned 64-bit numbers; what does not fit loses precision. */
json_t *json_bytes(uint64_t n);

/* Adds a value, which must not be NULL, to an object, or to an array (key
 * NULL). The program ends if there is no memory.
 */
void json_put(json_t *to, const char *key, json_t *value);

/* Prints and frees. */
void json_print(json_t *value);

#endif /* JSON_H */
