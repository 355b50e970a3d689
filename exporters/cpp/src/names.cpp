#include "names.hpp"

#include <algorithm>

namespace gatedeploy {
namespace {

bool is_word(char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9') ||
           letter == '_';
}

bool is_part(std::string_view part) {
    constexpr std::size_t kLongest = 201;
    return !part.empty() && part.size() <= kLongest && is_word(part[0]) &&
           std::all_of(part.begin(), part.end(), [](char each) { return is_word(each) || each == '.' || each == '-'; });
}

}  // namespace

bool is_name(std::string_view text) {
    constexpr std::size_t kLongest = 200;
    // Identifiers may have letters of any script: bytes from 0x80 on.
    return !text.empty() && text.size() <= kLongest && std::all_of(text.begin(), text.end(), [](char each) {
        return is_word(each) || static_cast<unsigned char>(each) >= 0x80;
    });
}

bool is_file_name(std::string_view path) {
    constexpr int kDeepest = 6;
    for (int depth = 0; depth < kDeepest; ++depth) {
        const std::size_t slash = path.find('/');
        if (!is_part(path.substr(0, slash))) return false;
        if (slash == std::string_view::npos) return true;
        path.remove_prefix(slash + 1);
    }
    return false;
}

bool is_one_line(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char each) {
        const auto code = static_cast<unsigned char>(each);
        return code >= 0x20 && code != 0x7f;
    });
}

}  // namespace gatedeploy
