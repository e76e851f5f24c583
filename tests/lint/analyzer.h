/* SPDX-License-Identifier: BSD-3-Clause */
/* analyzer.h: what clang's analyzer does not see from one file alone; it is
 * included in front of each.
 */
#include "base/error.h"

/* They return -1, and whoever returns their value has failed. */
#define error_set(...) (error_set(__VA_ARGS__), -1)
#define error_set_errno(...) (error_set_errno(__VA_ARGS__), -1)
#define error_prefix(...) (error_prefix(__VA_ARGS__), -1)
#define error_hint(...) (error_hint(__VA_ARGS__), -1)
#define error_nomem(err) (error_nomem(err), -1)
