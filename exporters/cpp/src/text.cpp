#include "text.hpp"

#include <algorithm>
#include <cstdio>

namespace gatedeploy {

std::string shown(std::string_view text) {
    constexpr std::size_t kLongest = 80;
    std::string result(text.substr(0, kLongest));
    for (char& letter : result) {
        const auto code = static_cast<unsigned char>(letter);
        if (code < 0x20 || code == 0x7f) letter = '?';
    }
    return text.size() > kLongest ? result + "..." : result;
}

std::string in_quotes(std::string_view text) { return "'" + shown(text) + "'"; }

std::string grouped(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t place = digits.size(); place > 3; place -= 3) digits.insert(place - 3, ",");
    return digits;
}

std::string joined(const std::vector<std::string>& words, std::string_view between) {
    constexpr std::size_t kMost = 10;
    std::string result;
    for (std::size_t position = 0; position < std::min(words.size(), kMost); ++position) {
        if (position > 0) result += between;
        result += shown(words[position]);
    }
    return words.size() > kMost ? result + " and " + grouped(words.size() - kMost) + " more" : result;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string result = "(";
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (axis > 0) result += ", ";
        result += shape[axis] < 0 ? "batch" : std::to_string(shape[axis]);
    }
    return result + (shape.size() == 1 ? ",)" : ")");
}

std::string short_number(double number) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2e", number);
    return text;
}

}  // namespace gatedeploy
