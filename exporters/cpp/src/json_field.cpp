#include <algorithm>

#include "json.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

const char* kind_of(const Json& json) {
    constexpr const char* kKinds[] = {"null", "a truth value", "a whole number", "a number",
                                      "text", "a list",        "an object"};
    return kKinds[json.value.index()];
}

}  // namespace

void JsonField::refuse(const std::string& problem) const {
    throw JsonError((where_.empty() ? "" : where_ + ": ") + problem);
}

const Json* JsonField::find(std::string_view key) const {
    const auto* members = std::get_if<Json::Members>(&json_->value);
    if (!members) refuse(std::string("expected an object, got ") + kind_of(*json_));
    const auto found =
        std::find_if(members->begin(), members->end(), [key](const JsonMember& member) { return member.key == key; });
    return found == members->end() ? nullptr : &found->value;
}

JsonField JsonField::operator[](std::string_view key) const {
    const Json* found = find(key);
    if (!found) refuse("has no " + in_quotes(key));
    return {*found, where_.empty() ? std::string(key) : where_ + "." + std::string(key)};
}

bool JsonField::has(std::string_view key) const { return find(key) != nullptr; }

bool JsonField::is_null() const { return std::holds_alternative<std::nullptr_t>(json_->value); }

std::vector<JsonField> JsonField::items() const {
    const auto* items = std::get_if<Json::Items>(&json_->value);
    if (!items) refuse(std::string("expected a list, got ") + kind_of(*json_));
    std::vector<JsonField> result;
    for (const Json& item : *items) result.emplace_back(item, where_ + "[" + std::to_string(result.size()) + "]");
    return result;
}

std::vector<std::pair<std::string, JsonField>> JsonField::members() const {
    const auto* members = std::get_if<Json::Members>(&json_->value);
    if (!members) refuse(std::string("expected an object, got ") + kind_of(*json_));
    std::vector<std::pair<std::string, JsonField>> result;
    for (const JsonMember& member : *members) {
        result.emplace_back(member.key, JsonField(member.value, where_ + "." + shown(member.key)));
    }
    return result;
}

bool JsonField::is_text() const { return std::holds_alternative<std::string>(json_->value); }

const std::string& JsonField::text() const {
    const auto* text = std::get_if<std::string>(&json_->value);
    if (!text) refuse(std::string("expected text, got ") + kind_of(*json_));
    return *text;
}

std::int64_t JsonField::count() const {
    const auto* whole = std::get_if<std::int64_t>(&json_->value);
    if (!whole || *whole < 0) {
        refuse(std::string("expected a whole number from 0 on, got ") + (whole ? "less" : kind_of(*json_)));
    }
    return *whole;
}

double JsonField::number() const {
    if (const auto* whole = std::get_if<std::int64_t>(&json_->value)) return static_cast<double>(*whole);
    const auto* number = std::get_if<double>(&json_->value);
    if (!number) refuse(std::string("expected a number, got ") + kind_of(*json_));
    return *number;
}

}  // namespace gatedeploy
