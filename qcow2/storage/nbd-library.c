/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-library.c: loads libnbd; see nbd-library.h. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_LIBNBD

#include "storage/nbd-library.h"

#include <dlfcn.h>
#include <errno.h>

#include "base/error.h"
#include "base/escape.h"

int
nbd_library_load(struct nbd_library *lib, struct qcow2_error *err)
{
    lib->handle = dlopen(LIBNBD_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
#define FIND(name) \
    lib->name = lib->handle ? dlsym(lib->handle, "nbd_" #name) : NULL; \
    if (!lib->name) \
        return error_set(err, ENOTSUP, "NBD needs libnbd: %s", dlerror());
    NBD_FUNCTIONS(FIND)
#undef FIND
    return 0;
}

void
nbd_library_unload(struct nbd_library *lib)
{
    if (lib->handle)
        dlclose(lib->handle);
}

int
nbd_library_error(const struct nbd_library *lib, struct qcow2_error *err,
                  const char *context)
{
    const char *text = lib->get_error();
    int e = lib->get_errno();

    return error_set(err, e ? e : EIO, "%s: %s", context,
                     ESCAPED(text ? text : "the server is not understood"));
}

#endif /* HAVE_LIBNBD */
