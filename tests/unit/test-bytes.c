/* SPDX-License-Identifier: BSD-3-Clause */
/* test-bytes.c: big-endian integers. */
#include "base/bytes.h"

#include "expect.h"

static void
values_are_stored_most_significant_byte_first(void **state)
{
    be16 a = be16_make(0x0102);
    be32 b = be32_make(0x01020304);
    be64 c = be64_make(UINT64_C(0x0102030405060708));

    (void)state;
    assert_memory_equal(&a, "\1\2", 2);
    assert_memory_equal(&b, "\1\2\3\4", 4);
    assert_memory_equal(&c, "\1\2\3\4\5\6\7\10", 8);
}

static void
values_come_back_as_they_were(void **state)
{
    static const uint64_t values[] = { 0, 1, 0x80, 0xff, UINT64_MAX,
                                       UINT64_C(0xfedcba9876543210) };

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_true(be16_get(be16_make(values[i])) == (uint16_t)values[i]);
        assert_true(be32_get(be32_make(values[i])) == (uint32_t)values[i]);
        assert_true(be64_get(be64_make(values[i])) == values[i]);
    }
}

static void
structures_of_them_have_no_padding(void **state)
{
    struct mixed {
        be16 a;
        be64 b;
        be32 c;
    };

    (void)state;
    assert_int_equal(sizeof(struct mixed), 14);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_stored_most_significant_byte_first),
        cmocka_unit_test(values_come_back_as_they_were),
        cmocka_unit_test(structures_of_them_have_no_padding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
