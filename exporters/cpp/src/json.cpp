#include "json.hpp"

#include <algorithm>
#include <locale>
#include <sstream>

#include "text.hpp"

namespace gatedeploy {
namespace {

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json result = value(0);
        skip_space();
        if (place_ < text_.size()) refuse("something follows its end");
        return result;
    }

private:
    [[noreturn]] void refuse(const std::string& problem) const {
        throw JsonError(problem + " at byte " + grouped(place_));
    }

    void skip_space() {
        while (place_ < text_.size() && std::string_view(" \t\n\r").find(text_[place_]) != std::string_view::npos) {
            ++place_;
        }
    }

    /// The next character that is no space; it is not taken yet.
    char peek() {
        skip_space();
        if (place_ == text_.size()) refuse("it ends too early");
        return text_[place_];
    }

    void expect(char wanted) {
        if (peek() != wanted) refuse("expected " + in_quotes(std::string_view(&wanted, 1)));
        ++place_;
    }

    bool taken(std::string_view word) {
        if (text_.substr(place_, word.size()) != word) return false;
        place_ += word.size();
        return true;
    }

    Json value(int depth) {
        if (depth > Json::kDepth) refuse("values in more than " + std::to_string(Json::kDepth) + " others");
        if (++values_ > Json::kValues) refuse("more than " + grouped(Json::kValues) + " values");
        switch (peek()) {
            case '{':
                return {object(depth)};
            case '[':
                return {array(depth)};
            case '"':
                return {string()};
            default:
                if (taken("true")) return {true};
                if (taken("false")) return {false};
                if (taken("null")) return {nullptr};
                return number();
        }
    }

    Json::Items array(int depth) {
        Json::Items items;
        expect('[');
        if (peek() == ']') return ++place_, items;
        while (true) {
            items.push_back(value(depth + 1));
            if (peek() == ']') return ++place_, items;
            expect(',');
        }
    }

    Json::Members object(int depth) {
        Json::Members members;
        expect('{');
        if (peek() == '}') return ++place_, members;
        while (true) {
            if (peek() != '"') refuse("expected a key");
            std::string key = string();
            expect(':');
            members.push_back({std::move(key), value(depth + 1)});
            if (peek() == '}') break;
            expect(',');
        }
        ++place_;
        refuse_twins(members);
        return members;
    }

    void refuse_twins(const Json::Members& members) const {
        std::vector<std::string_view> keys;
        for (const JsonMember& member : members) keys.push_back(member.key);
        std::sort(keys.begin(), keys.end());
        const auto twin = std::adjacent_find(keys.begin(), keys.end());
        if (twin != keys.end()) refuse("the key " + in_quotes(*twin) + " twice");
    }

    std::string string() {
        std::string result;
        expect('"');
        while (true) {
            if (place_ == text_.size()) refuse("it ends too early");
            const char letter = text_[place_++];
            if (letter == '"') return result;
            const auto code = static_cast<unsigned char>(letter);
            if (code < 0x20 || code > 0x7e) --place_, refuse("a character that is not printable ASCII");
            if (letter == '\\') {
                escape(result);
            } else {
                result += letter;
            }
        }
    }

    void escape(std::string& result) {
        constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
        if (place_ == text_.size()) refuse("it ends too early");
        const char name = text_[place_++];
        if (name == 'u') return utf8(code_point(), result);
        const std::size_t position = kNames.find(name);
        if (position == std::string_view::npos) refuse("an unknown escape");
        result += kMeanings[position];
    }

    /// After `\u`: a character, of two halves where it lies beyond the first 65,536.
    std::uint32_t code_point() {
        const std::uint32_t first = four_digits();
        if (first < 0xd800 || first > 0xdfff) return first;
        if (first > 0xdbff || !taken("\\u")) refuse("half a character");
        const std::uint32_t second = four_digits();
        if (second < 0xdc00 || second > 0xdfff) refuse("half a character");
        return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    }

    std::uint32_t four_digits() {
        std::uint32_t result = 0;
        for (int i = 0; i < 4; ++i) {
            if (place_ == text_.size()) refuse("it ends too early");
            const char digit = text_[place_++];
            const std::size_t worth = std::string_view("0123456789abcdef0123456789ABCDEF").find(digit);
            if (worth == std::string_view::npos) refuse("expected a hexadecimal digit");
            result = result * 16 + static_cast<std::uint32_t>(worth % 16);
        }
        return result;
    }

    static void utf8(std::uint32_t code, std::string& result) {
        const auto put = [&result](std::uint32_t byte) { result += static_cast<char>(byte); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xc0 | code >> 6), put(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
        } else {
            put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 0x3f));
            put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
        }
    }

    std::size_t digits() {
        const std::size_t start = place_;
        while (place_ < text_.size() && text_[place_] >= '0' && text_[place_] <= '9') ++place_;
        if (place_ == start) refuse("expected a value");
        return place_ - start;
    }

    Json number() {
        const std::size_t start = place_;
        bool whole = true;
        taken("-");
        const bool zero = place_ < text_.size() && text_[place_] == '0';
        if (digits() > 1 && zero) refuse("a number that begins with 0");
        if (taken(".")) whole = false, digits();
        if (taken("e") || taken("E")) {
            whole = false;
            if (!taken("-")) taken("+");
            digits();
        }
        const std::string word(text_.substr(start, place_ - start));
        constexpr std::size_t kSafe = 18;  // so many digits always fit
        if (whole && word.size() <= kSafe) return {static_cast<std::int64_t>(std::stoll(word))};
        // A stream and not strtod: that one takes the decimal point of the user's country.
        std::istringstream stream(word);
        stream.imbue(std::locale::classic());
        double result = 0;
        if (!(stream >> result)) refuse("a number that is too large");
        return {result};
    }

    std::string_view text_;
    std::size_t place_ = 0;
    std::size_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace gatedeploy
