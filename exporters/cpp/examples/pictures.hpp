// Pictures in files, as far as the example needs them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "gatedeploy/gatedeploy.hpp"

/// The pixels of a PNG or of a raw file: (height, width, channels), 8 bits, of the size that `input` says.
/// Throws gatedeploy::InputError for another size: how pictures were resized for training, only you know.
std::vector<std::uint8_t> read_pixels(const std::filesystem::path& path, const gatedeploy::InputSpec& input);

void write_bytes(const std::filesystem::path& path, const void* bytes, std::size_t count);

/// A dense answer to the first picture, to look at: classes as greys, depth from near to far, normals as colours.
/// Nothing where the tensor is no map. Returns the file, or an empty path.
std::filesystem::path write_view(const std::filesystem::path& folder, const gatedeploy::Tensor& output,
                                 const gatedeploy::Task& task);
