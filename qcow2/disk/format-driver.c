/* SPDX-License-Identifier: BSD-3-Clause */
/* format-driver.c: the formats that there are; see format-driver.h. */
#include "disk/format-driver.h"

static const struct format_driver *const drivers[] = {
    &image_driver,
    &qcow1_driver,
    &raw_driver,
};

const struct format_driver *
format_driver(enum qcow2_format format)
{
    for (unsigned i = 0; i < sizeof drivers / sizeof drivers[0]; i++)
        if (drivers[i]->format == format)
            return drivers[i];
    __builtin_unreachable();
}
