// Words and numbers for messages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gatedeploy/errors.hpp"

namespace gatedeploy {

/// Text of a stranger's, fit for a terminal: at most 80 characters, and no control characters.
std::string shown(std::string_view text);

/// `shown`, in quotes.
std::string in_quotes(std::string_view text);

/// "1,234,567".
std::string grouped(std::uint64_t number);

/// "a, b, c"; the first ten of many.
std::string joined(const std::vector<std::string>& words, std::string_view between = ", ");

/// "(batch, 3, 8, 8)"; a free size is called "batch".
std::string shape_text(const std::vector<std::int64_t>& shape);

/// "1.00e-05".
std::string short_number(double number);

/// Puts `where: ` before the message of an error that leaves `work`, and keeps its type.
template <class Work>
auto located(const std::string& where, Work work) {
    try {
        return work();
    } catch (const MissingBackendError& error) {
        throw MissingBackendError(where + ": " + error.what());
    } catch (const InputError& error) {
        throw InputError(where + ": " + error.what());
    } catch (const CheckError& error) {
        throw CheckError(where + ": " + error.what());
    } catch (const Error& error) {
        throw Error(where + ": " + error.what());
    }
}

}  // namespace gatedeploy
