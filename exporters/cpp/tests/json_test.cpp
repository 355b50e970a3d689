#include "json.hpp"

#include "check.hpp"

using gatedeploy::Json;
using gatedeploy::JsonError;
using gatedeploy::JsonField;
using gatedeploy::parse_json;

namespace {

std::string text_of(const std::string& json) { return std::get<std::string>(parse_json(json).value); }
double number_of(const std::string& json) { return JsonField(parse_json(json), "").number(); }

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST(numbers_are_read_as_python_writes_them) {
    CHECK(number_of("0") == 0);
    CHECK(number_of("-12") == -12);
    CHECK(number_of("0.1") == 0.1);
    CHECK(number_of("1.7426081600302255e-08") == 1.7426081600302255e-08);
    CHECK(number_of("-0.19687482383136778") == -0.19687482383136778);
    CHECK(number_of("1E+2") == 100);
    CHECK(number_of("5e-324") == 5e-324);
    CHECK(number_of("123456789012345678901234567890") == 123456789012345678901234567890.0);
    CHECK(std::holds_alternative<std::int64_t>(parse_json("999999999999999999").value));
    CHECK(std::holds_alternative<double>(parse_json("1.0").value));
}

TEST(numbers_that_are_none_are_refused) {
    for (const char* text : {"01", "-", "+1", ".5", "1.", "1e", "0x1", "NaN", "Infinity", "-Infinity", "1 2"}) {
        CHECK_THROWS(JsonError, "at byte", parse_json(text));
    }
    CHECK_THROWS(JsonError, "too large", parse_json("1e999"));
}

TEST(text_may_hold_every_character) {
    CHECK(text_of(R"("a\"\\\/\b\f\n\r\tz")") == "a\"\\/\b\f\n\r\tz");
    CHECK(text_of(R"("\u0041\u00dF\u20ac\ud83d\ude00")") == "A\u00df\u20ac\U0001F600");
    for (const char* text : {"\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83d\\u0041\""}) {
        CHECK_THROWS(JsonError, "half a character", parse_json(text));
    }
    for (const char* text : {"\"", "\"\\", "\"\\u12", "\"\\x\"", "\"\n\"", "\"\xc3\x9f\"", "\"\\u12g4\""}) {
        CHECK_THROWS(JsonError, "at byte", parse_json(text));
    }
}

TEST(what_is_not_complete_is_refused) {
    for (const char* text : {"", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}",
                             "{a:1}", "tru", "nulll", "[1]]", "{} {}", "'a'", "[1 2]", "{1:2}"}) {
        CHECK_THROWS(JsonError, "at byte", parse_json(text));
    }
    CHECK_THROWS(JsonError, "the key 'a' twice", parse_json(R"({"a":1,"b":2,"a":3})"));
}

TEST(depth_and_count_are_bounded) {
    CHECK(parse_json(nested(Json::kDepth)).value.index() == 5);
    CHECK_THROWS(JsonError, "values in more than 32 others", parse_json(nested(Json::kDepth + 2)));
    CHECK_THROWS(JsonError, "values in more than 32 others", parse_json(std::string(10000000, '[')));
    std::string many = "[0";
    for (std::size_t i = 0; i < Json::kValues; ++i) many += ",0";
    CHECK_THROWS(JsonError, "more than 524,288 values", parse_json(many + "]"));
}

TEST(a_field_says_where_it_stands) {
    const Json json = parse_json(R"({"a":[{"b":1},{"b":"x","c":-1,"d":0.5,"e":null}]})");
    const JsonField item = JsonField(json, "")["a"].items()[1];
    CHECK(item["b"].text() == "x");
    CHECK(item["e"].is_null());
    CHECK(item.has("d") && !item.has("z"));
    CHECK_THROWS(JsonError, "a[1].b: expected a number, got text", item["b"].number());
    CHECK_THROWS(JsonError, "a[1].c: expected a whole number from 0 on, got less", item["c"].count());
    CHECK_THROWS(JsonError, "a[1].d: expected a whole number from 0 on, got a number", item["d"].count());
    CHECK_THROWS(JsonError, "a[1].e: expected text, got null", item["e"].text());
    CHECK_THROWS(JsonError, "a[1]: has no 'z'", item["z"]);
    CHECK_THROWS(JsonError, "a[1]: expected a list, got an object", item.items());
    CHECK_THROWS(JsonError, "a: expected an object, got a list", JsonField(json, "")["a"]["b"]);
    CHECK_THROWS(JsonError, "a: expected an object, got a list", JsonField(json, "")["a"].members());
}
