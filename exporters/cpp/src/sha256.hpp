// SHA-256 (FIPS 180-4). A few dozen lines, so that the library needs no other one to check a bundle.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace gatedeploy {

/// The hash of bytes that come in pieces.
class Sha256 {
public:
    void update(const void* bytes, std::size_t count);

    /// The hash in hexadecimal; the object cannot be used again.
    std::string hex();

private:
    void block(const std::uint8_t* bytes);

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> pending_ = {};
    std::size_t filled_ = 0;  // bytes of `pending_` that wait for a whole block
    std::uint64_t total_ = 0;
};

std::string sha256(std::string_view bytes);

/// The hash of a file's content. Throws InputError where it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace gatedeploy
