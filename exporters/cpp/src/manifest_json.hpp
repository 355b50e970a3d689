// `manifest.json` as text.
#pragma once

#include <string_view>

#include "gatedeploy/bundle.hpp"

namespace gatedeploy {

constexpr const char* kManifest = "manifest.json";

/// No tensor of one picture may have more values than this: 1 GiB of float32.
constexpr std::int64_t kMostValues = std::int64_t{1} << 28;

/// The reference picture may be at most so many pictures.
constexpr std::int64_t kMostReference = 64;

/// Reads what `gatedeploy export` wrote; nothing in it is trusted.
/// Throws InputError: it is something else, of another version, of the wrong form, or lists a file outside its folder.
/// Throws CheckError: it was changed or damaged since it was written.
Manifest manifest_from_json(std::string_view text);

}  // namespace gatedeploy
