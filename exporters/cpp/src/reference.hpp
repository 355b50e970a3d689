// What a network must answer to a picture that everybody can make: how a bundle proves itself on another machine.
#pragma once

#include <cstdint>
#include <vector>

#include "gatedeploy/bundle.hpp"

namespace gatedeploy {

/// Number `i` of evenly spread 32-bit numbers: a mix (MurmurHash3's last step) of i + seed · 0x9E3779B9.
std::uint32_t noise(std::uint32_t i, std::uint64_t seed);

/// 8-bit pictures of noise, preprocessed: (batch, channels, height, width). Pixels are alike in squares, of edges 1, 4
/// and 16 in turn; a square is the highest byte of number i of `noise`, where i is the place of its first pixel in
/// memory order, channels first.
std::vector<float> reference_picture(const InputSpec& input, std::int64_t batch, std::uint64_t seed);

/// What to remember of an output: mean, deviation, the largest absolute value, the first `first` values, and the
/// projection Σ value × sign / √count with signs of noise, which depends on every value and on where it stands.
Fingerprint fingerprint(const Tensor& output, std::size_t first);

/// The largest difference of any of their numbers, relative to the scale of the expected output; a NaN gives NaN.
double difference(const Fingerprint& expected, const Fingerprint& got);

}  // namespace gatedeploy
