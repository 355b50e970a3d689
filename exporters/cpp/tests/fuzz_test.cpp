// Whatever stands in a manifest, it is read or refused with one of our errors, in bounded time and memory.
#include <random>

#include "check.hpp"
#include "gatedeploy/errors.hpp"
#include "json.hpp"
#include "manifest_json.hpp"
#include "some_bundle.hpp"

namespace {

using Random = std::mt19937;

std::size_t below(Random& random, std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
}

const char* const kPieces[] = {"0",
                               "-1",
                               "1e308",
                               "1e-308",
                               "999999999999999999",
                               "9223372036854775808",
                               "null",
                               "true",
                               "\"\"",
                               "[]",
                               "{}",
                               "[[[[[[[[",
                               "\\u0000",
                               "\\ud800",
                               "..",
                               "/",
                               "batch",
                               ",",
                               "\"",
                               "}",
                               "]"};

/// One value, name or mark of the text replaced, removed or doubled.
std::string mutated(std::string text, Random& random) {
    const std::size_t place = below(random, text.size()),
                      length = below(random, std::min<std::size_t>(30, text.size()));
    switch (below(random, 5)) {
        case 0:
            text[place] = static_cast<char>(below(random, 256));
            break;
        case 1:
            text.erase(place, length);
            break;
        case 2:
            text.insert(place, text.substr(below(random, text.size()), length));
            break;
        case 3:
            text.insert(place, kPieces[below(random, std::size(kPieces))]);
            break;
        default: {  // the next word, whole
            const std::size_t start = text.find_first_of(" [,:", place), end = text.find_first_of(",]}\n", start);
            if (end != std::string::npos)
                text.replace(start + 1, end - start - 1, kPieces[below(random, std::size(kPieces))]);
        }
    }
    return text;
}

}  // namespace

TEST(manifests_made_of_others_are_read_or_refused) {
    const SomeBundle bundle;
    Random random(1);
    int read = 0, refused = 0;
    for (int round = 0; round < 5000; ++round) {
        std::string body = bundle.body();
        for (std::size_t times = 1 + below(random, 3); times > 0 && !body.empty(); --times)
            body = mutated(body, random);
        try {
            gatedeploy::manifest_from_json(sealed(body));
            ++read;
        } catch (const gatedeploy::Error&) {
            ++refused;
        }
    }
    CHECK(read > 50 && refused > 2500);
}

TEST(noise_is_no_json) {
    Random random(2);
    for (int round = 0; round < 5000; ++round) {
        std::string text;
        for (std::size_t length = below(random, 40); length > 0; --length) {
            text += random() % 2 ? kPieces[below(random, std::size(kPieces))]
                                 : std::string(1, "[]{}\":,\\0 e-."[random() % 13]);
        }
        try {
            gatedeploy::parse_json(text);
        } catch (const gatedeploy::Error&) {
        }
    }
}
