// JSON (RFC 8259) for the one file that this library reads.
//
// Why not a library: this folder is what users copy to a board and compile there or for there, often without a
// network and with nothing but a compiler and their runtime's SDK. A reader of our own keeps the core free of every
// dependency, and is bounded by construction, which a manifest of a stranger's asks for: values lie at most kDepth deep
// and are at most kValues, keys occur once, and text is plain ASCII with escapes, which is all that Python writes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gatedeploy/errors.hpp"

namespace gatedeploy {

/// The text is no JSON, or not of the form that it should have.
class JsonError : public InputError {
public:
    using InputError::InputError;
};

struct JsonMember;

/// A value; where it is an object, `members` are in the order of the text.
struct Json {
    static constexpr int kDepth = 32;
    static constexpr std::size_t kValues = 1 << 19;

    using Items = std::vector<Json>;
    using Members = std::vector<JsonMember>;

    /// A whole number that fits is an int64, every other number a double.
    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Items, Members> value;
};

struct JsonMember {
    std::string key;
    Json value;
};

/// Throws JsonError, saying what and at which byte, for anything that is not one complete value.
Json parse_json(std::string_view text);

/// A value, and where it stands, so that what is wrong with it can be told: "outputs[0].name".
class JsonField {
public:
    JsonField(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}

    /// The member `key`. Throws JsonError where there is none.
    JsonField operator[](std::string_view key) const;
    bool has(std::string_view key) const;
    bool is_null() const;

    std::vector<JsonField> items() const;                            ///< of an array
    std::vector<std::pair<std::string, JsonField>> members() const;  ///< of an object
    const std::string& text() const;
    bool is_text() const;
    std::int64_t count() const;  ///< a whole number from 0 on
    double number() const;       ///< of either kind

    /// A JsonError that says `problem` of this place.
    [[noreturn]] void refuse(const std::string& problem) const;

private:
    const Json* find(std::string_view key) const;

    const Json* json_;
    std::string where_;
};

}  // namespace gatedeploy
