// Which names of a stranger's are harmless.
#pragma once

#include <string_view>

namespace gatedeploy {

/// The name of a task, an input or an output. Programs make file names of them: no separators, no dots, one line.
bool is_name(std::string_view text);

/// A path that stays in its folder on every system: no `..`, no hidden file, no drive, no backslash, not absolute.
bool is_file_name(std::string_view path);

/// Not empty, and without control characters.
bool is_one_line(std::string_view text);

}  // namespace gatedeploy
