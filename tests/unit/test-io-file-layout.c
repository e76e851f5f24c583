/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-file-layout.c: attributes that new files get. The linker sends calls
 * of ioctl here (--wrap), as few file systems have any of them.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "expect.h"
#include "qcow2.h"
#include "tmpdir.h"

/* What a file system that has all of them knows about the file. */
static struct {
    bool has_attributes;
    int flags;
    struct fsxattr more;
    unsigned nr_set;
    off_t size;      /* of the file when the last attribute was set */
} fake;

int __wrap_ioctl(int fd, unsigned long request, ...);

/* What ioctl is on 32-bit machines whose time_t has 64 bits. */
int __wrap___ioctl_time64(int fd, unsigned long request, ...)
    __attribute__((alias("__wrap_ioctl")));

int
__wrap_ioctl(int fd, unsigned long request, ...)
{
    struct stat st;
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    errno = ENOTTY;
    if (!fake.has_attributes)
        return -1;
    if (request == FS_IOC_GETFLAGS) {
        *(int *)arg = fake.flags;
        return 0;
    }
    if (request == FS_IOC_FSGETXATTR) {
        *(struct fsxattr *)arg = fake.more;
        return 0;
    }
    if (request == FS_IOC_SETFLAGS)
        fake.flags = *(int *)arg;
    else if (request == FS_IOC_FSSETXATTR)
        fake.more = *(struct fsxattr *)arg;
    else
        return -1;
    EXPECT(fstat(fd, &st) == 0, "fstat");
    fake.size = st.st_size;
    fake.nr_set++;
    return 0;
}

static void
create(bool raw, const struct qcow2_create_options *o)
{
    struct qcow2_error err;

    fake.nr_set = 0;
    fake.size = -1;
    fake.flags = FS_NODUMP_FL;
    fake.more = (struct fsxattr){ .fsx_xflags = FS_XFLAG_NODUMP };
    EXPECT_OK(raw ? qcow2_create_raw(tmpdir_path("file"), o, &err)
                  : qcow2_create(tmpdir_path("file"), o, &err), &err);
}

static void
test_new_files_get_what_is_asked_for(void **state)
{
    struct qcow2_create_options o = { .size = 1 << 20, .overwrite = true };

    (void)state;
    fake.has_attributes = true;
    for (int raw = 0; raw < 2; raw++) {
        o.nocow = false;
        o.extent_size_hint = 0;
        create(raw, &o);
        assert_int_equal(fake.nr_set, 0);
        o.nocow = true;
        create(raw, &o);
        assert_int_equal(fake.nr_set, 1);
        assert_int_equal(fake.flags, FS_NODUMP_FL | FS_NOCOW_FL);
        o.extent_size_hint = 3 << 20;
        create(raw, &o);
        assert_int_equal(fake.nr_set, 2);
        assert_int_equal(fake.more.fsx_xflags,
                         FS_XFLAG_NODUMP | FS_XFLAG_EXTSIZE);
        assert_int_equal(fake.more.fsx_extsize, 3 << 20);
    }
}

static void
test_they_are_set_before_there_are_data(void **state)
{
    const struct qcow2_create_options o = {
        .size = 1 << 20, .overwrite = true, .nocow = true,
    };

    (void)state;
    fake.has_attributes = true;
    for (int i = 0; i < 4; i++) {
        create(i % 2, &o);
        assert_int_equal(fake.size, 0);
    }
}

static void
test_file_systems_without_them_are_no_error(void **state)
{
    const struct qcow2_create_options o = {
        .size = 1 << 20, .overwrite = true, .nocow = true,
        .extent_size_hint = 1 << 20,
    };

    (void)state;
    fake.has_attributes = false;
    for (int raw = 0; raw < 2; raw++) {
        create(raw, &o);
        assert_int_equal(fake.nr_set, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_files_get_what_is_asked_for),
        cmocka_unit_test(test_they_are_set_before_there_are_data),
        cmocka_unit_test(test_file_systems_without_them_are_no_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
