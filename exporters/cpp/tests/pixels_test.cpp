#include "gatedeploy/pixels.hpp"

#include <limits>

#include "check.hpp"
#include "gatedeploy/errors.hpp"
#include "reference.hpp"

using namespace gatedeploy;

namespace {

const InputSpec kInput = {"image", 2, 1, 3, {0.5, 0.25}, {0.5, 2}};

Tensor tensor(std::vector<float> values) {
    Tensor result;
    result.shape = {1, static_cast<std::int64_t>(values.size())};
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    result.bytes.assign(bytes, bytes + 4 * values.size());
    return result;
}

}  // namespace

TEST(pixels_become_a_picture) {
    const std::vector<std::uint8_t> pixels = {0, 255, 51, 0, 255, 102, 1, 2, 3, 4, 5, 6};
    std::vector<float> pictures(12);
    preprocess(kInput, pixels.data(), pixels.size(), pictures.data());
    CHECK(pictures[0] == -1 && pictures[1] == static_cast<float>((51 / 255.0 - 0.5) / 0.5) && pictures[2] == 1);
    CHECK(pictures[3] == 0.375f && pictures[4] == -0.125f);
    CHECK(pictures[6] == static_cast<float>((1 / 255.0 - 0.5) / 0.5));
    CHECK(pictures[11] == static_cast<float>((6 / 255.0 - 0.25) / 2));
    CHECK_THROWS(InputError, "got 5 pixel values; a picture of 1 × 3 with 2 channels has 6",
                 preprocess(kInput, pixels.data(), 5, pictures.data()));
    CHECK_THROWS(InputError, "got 0 pixel values", preprocess(kInput, pixels.data(), 0, pictures.data()));
}

TEST(noise_is_pythons) {
    // gatedeploy.exporters.reference.noise(4, seed) for seeds 0, 1 and 123456789012.
    const std::uint32_t expected[3][4] = {{0u, 1364076727u, 821347078u, 2247144487u},
                                          {2462723854u, 2527132011u, 3024231355u, 3984711379u},
                                          {1470385192u, 2655473794u, 144435249u, 2113495675u}};
    const std::uint64_t seeds[] = {0, 1, 123456789012};
    for (int s = 0; s < 3; ++s) {
        for (std::uint32_t i = 0; i < 4; ++i) CHECK(noise(i, seeds[s]) == expected[s][i]);
    }
}

TEST(a_fingerprint_is_pythons) {
    // gatedeploy.exporters.reference.fingerprint(np.array([[1, -2, 3, 0.5]], np.float32))
    const Fingerprint print = fingerprint(tensor({1, -2, 3, 0.5}), 2);
    const Fingerprint expected = {{1, 4}, 0.625, 1.7809758560968758, 3.0, 0.7228926910320297, {1, -2}};
    CHECK(print.shape == expected.shape && print.first == expected.first);
    CHECK(difference(expected, print) < 1e-12);
}

TEST(differences_are_seen) {
    const Fingerprint one = fingerprint(tensor({1, -2, 3, 0.5}), 4);
    CHECK(difference(one, one) == 0);
    CHECK(difference(one, fingerprint(tensor({1, -2, 3, 0.8f}), 4)) > 0.05);
    const Fingerprint unquoted = fingerprint(tensor({1, -2, 3, 0.5}), 0);  // then the projection tells of an order
    CHECK(difference(unquoted, fingerprint(tensor({-2, 1, 3, 0.5}), 0)) > 0.01);
    CHECK(std::isnan(difference(one, fingerprint(tensor({1, -2, 3, std::numeric_limits<float>::quiet_NaN()}), 4))));
    CHECK(!(difference(one, fingerprint(tensor({1, -2, 3, std::numeric_limits<float>::infinity()}), 4)) < 1e300));
}

TEST(half_precision_is_read) {
    Tensor half;
    half.dtype = DType::float16;
    half.shape = {1, 4};
    const std::uint16_t bits[] = {0x3c00, 0xc000, 0x0001, 0x7bff};  // 1, -2, 2^-24, 65504
    const auto* bytes = reinterpret_cast<const std::byte*>(bits);
    half.bytes.assign(bytes, bytes + sizeof bits);
    CHECK((fingerprint(half, 4).first == std::vector<double>{1, -2, 5.9604644775390625e-08, 65504}));
}
