#include "processor.hpp"

#include "check.hpp"
#include "gatedeploy/errors.hpp"

using gatedeploy::check_targets;
using gatedeploy::InputError;

TEST(code_for_another_machine_is_refused) {
    check_targets({});
    CHECK_THROWS(InputError, "was compiled for sparc with vis, vis2; this machine is ",
                 check_targets({"sparc", "vis", "vis2"}));
    CHECK_THROWS(InputError, "was compiled for sparc; this machine is ", check_targets({"sparc"}));
#if defined(__x86_64__)
    check_targets({"x86_64", "something newer than this program"});
#elif defined(__aarch64__)
    check_targets({"aarch64", "neon"});
#endif
}
