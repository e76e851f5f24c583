/* SPDX-License-Identifier: BSD-3-Clause */
/* image-args.h: options of images to be made, as after -o. */
#ifndef IMAGE_ARGS_H
#define IMAGE_ARGS_H

#include "tool.h"

struct image_args {
    enum qcow2_format format;  /* AUTO: not said */
    struct qcow2_create_options create; /* version 0: not said */
    enum qcow2_preallocation prealloc;
    bool has_size, has_prealloc, has_compression, has_lazy_refcounts;
    bool has_encryption, has_data_file_raw, has_nocow, has_extent_size_hint;
    const char *compat;        /* as written; NULL: not said */
    char **strings;            /* what create's names point to */
    size_t nr_strings;
};

#define OPTION_IMAGE \
    { 'o', "options", "NAME=VALUE,...", "options of the new image; -o help " \
      "lists them" }

/* Takes the argument of one -o; may be called again. "help" prints the list
 * and ends the program.
 */
void image_args_take(struct image_args *i, const struct args *a,
                     const char *text);
void image_args_free(struct image_args *i);

/* Ends the program if the options contradict each other, or name a backing
 * file that can be none.
 */
void image_args_check(struct image_args *i, const struct args *a);

/* Prints "Formatting …": what is made. */
void image_args_show(const struct image_args *i, const char *path,
                     uint64_t size);

#endif /* IMAGE_ARGS_H */
