#include "gatedeploy/pixels.hpp"

#include <array>

#include "gatedeploy/errors.hpp"
#include "text.hpp"

namespace gatedeploy {

void preprocess(const InputSpec& input, const std::uint8_t* pixels, std::size_t count, float* pictures) {
    const auto channels = static_cast<std::size_t>(input.channels);
    const std::size_t values = input.values(), area = values / channels;
    if (count == 0 || count % values != 0) {
        throw InputError("got " + grouped(count) + " pixel values; a picture of " + std::to_string(input.height) +
                         " × " + std::to_string(input.width) + " with " + std::to_string(channels) + " channels has " +
                         grouped(values) + ": resize it to that");
    }
    for (std::size_t channel = 0; channel < channels; ++channel) {
        // In float64 and rounded once, as training did; a pixel has only 256 values.
        std::array<float, 256> table;
        for (std::size_t level = 0; level < table.size(); ++level) {
            const double value = (static_cast<double>(level) / 255 - input.mean[channel]) / input.stddev[channel];
            table[level] = static_cast<float>(value);
        }
        for (std::size_t picture = 0; picture < count; picture += values) {
            const std::uint8_t* from = pixels + picture + channel;
            float* to = pictures + picture + channel * area;
            for (std::size_t place = 0; place < area; ++place) to[place] = table[from[place * channels]];
        }
    }
}

}  // namespace gatedeploy
