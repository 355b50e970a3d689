// From 8-bit pixels to what a network takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gatedeploy/bundle.hpp"

namespace gatedeploy {

/// `(pixel / 255 - mean) / std`, and channels first: the very numbers that training used.
///
/// pixels: (batch, height, width, channels), `count` of them, of the size that `input` says.
/// pictures: (batch, channels, height, width), room for `count` values.
/// Throws InputError where `count` is not that of whole pictures.
void preprocess(const InputSpec& input, const std::uint8_t* pixels, std::size_t count, float* pictures);

}  // namespace gatedeploy
