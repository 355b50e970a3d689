#include "reference.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "gatedeploy/errors.hpp"

namespace gatedeploy {
namespace {

/// How large the squares are that made-up pictures consist of, picture by picture.
constexpr std::array<std::size_t, 3> kEdges = {1, 4, 16};

template <class T>
double value_at(const Tensor& tensor, std::size_t position) {
    return static_cast<double>(tensor.data<T>()[position]);
}

double half_at(const Tensor& tensor, std::size_t position) {
    std::uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + 2 * position, 2);
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) {
        size = fraction ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    }
    return bits >> 15 ? -size : size;
}

double (*reader(DType dtype))(const Tensor&, std::size_t) {
    switch (dtype) {
        case DType::boolean:
            return value_at<bool>;
        case DType::uint8:
            return value_at<std::uint8_t>;
        case DType::int8:
            return value_at<std::int8_t>;
        case DType::int32:
            return value_at<std::int32_t>;
        case DType::int64:
            return value_at<std::int64_t>;
        case DType::float16:
            return half_at;
        case DType::float32:
            return value_at<float>;
        case DType::float64:
            return value_at<double>;
    }
    throw Error("a type without a reader");
}

}  // namespace

std::uint32_t noise(std::uint32_t i, std::uint64_t seed) {
    std::uint32_t bits = i + static_cast<std::uint32_t>(seed * 0x9E3779B9u);
    bits = (bits ^ bits >> 16) * 0x85EBCA6Bu;
    bits = (bits ^ bits >> 13) * 0xC2B2AE35u;
    return bits ^ bits >> 16;
}

std::vector<float> reference_picture(const InputSpec& input, std::int64_t batch, std::uint64_t seed) {
    std::vector<float> picture(static_cast<std::size_t>(batch) * input.values());
    const auto width = static_cast<std::size_t>(input.width), area = static_cast<std::size_t>(input.height) * width;
    for (std::size_t i = 0; i < picture.size(); ++i) {
        const std::size_t edge = kEdges[i / input.values() % kEdges.size()];
        const std::size_t first = i - i % area / width % edge * width - i % width % edge;
        const std::size_t channel = i / area % static_cast<std::size_t>(input.channels);
        const std::uint32_t pixel = noise(static_cast<std::uint32_t>(first), seed) >> 24;
        picture[i] = static_cast<float>((pixel / 255.0 - input.mean[channel]) / input.stddev[channel]);
    }
    return picture;
}

Fingerprint fingerprint(const Tensor& output, std::size_t first) {
    Fingerprint print;
    print.shape = output.shape;
    const std::size_t count = output.values();
    const auto value = reader(output.dtype);
    double sum = 0, projection = 0, squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const double each = value(output, i), size = std::abs(each);
        sum += each;
        projection += each * (noise(static_cast<std::uint32_t>(i), 1) / 2147483648.0 - 1);
        print.max_abs = std::max(print.max_abs, size);  // loses a NaN, which the mean keeps
        if (print.first.size() < first) print.first.push_back(each);
    }
    print.mean = sum / static_cast<double>(count);
    for (std::size_t i = 0; i < count; ++i) squares += std::pow(value(output, i) - print.mean, 2);
    print.stddev = std::sqrt(squares / static_cast<double>(count));
    print.projection = projection / std::sqrt(static_cast<double>(count));
    return print;
}

double difference(const Fingerprint& expected, const Fingerprint& got) {
    std::vector<double> apart = {expected.mean - got.mean, expected.stddev - got.stddev, expected.max_abs - got.max_abs,
                                 expected.projection - got.projection};
    for (std::size_t i = 0; i < expected.first.size(); ++i) apart.push_back(expected.first[i] - got.first.at(i));
    double largest = 0;
    for (double each : apart) {
        if (!(std::abs(each) <= largest)) largest = std::abs(each);
        if (std::isnan(largest)) break;
    }
    return expected.max_abs > 0 ? largest / expected.max_abs : largest;
}

}  // namespace gatedeploy
