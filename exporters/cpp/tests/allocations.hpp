// Counts what is allocated with `new`, in the whole process.
#pragma once

#include <cstdint>

std::uint64_t allocations_so_far();
