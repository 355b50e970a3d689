#include "pictures.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#ifdef HAS_PNG
#include <png.h>
#endif

using gatedeploy::InputError;
using gatedeploy::InputSpec;

namespace {

std::string size_text(std::int64_t width, std::int64_t height) {
    return std::to_string(width) + " × " + std::to_string(height) + " (width × height)";
}

#ifdef HAS_PNG
std::vector<std::uint8_t> read_png(const std::string& path, const InputSpec& input) {
    if (input.channels != 1 && input.channels != 3) {
        throw InputError(path + ": the network takes " + std::to_string(input.channels) +
                         " channels, a PNG has 1 or 3: write raw pixels");
    }
    png_image image = {};
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path.c_str())) throw InputError(path + ": " + image.message);
    if (image.width != input.width || image.height != input.height) {
        png_image_free(&image);
        throw InputError(path + ": is " + size_text(image.width, image.height) + ", the network takes " +
                         size_text(input.width, input.height) + "; resize it as the pictures of training were");
    }
    image.format = input.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    std::vector<std::uint8_t> pixels(input.values());
    const png_color black = {0, 0, 0};  // behind what is transparent
    if (!png_image_finish_read(&image, &black, pixels.data(), 0, nullptr))
        throw InputError(path + ": " + image.message);
    return pixels;
}
#else
std::vector<std::uint8_t> read_png(const std::string& path, const InputSpec&) {
    throw InputError(path + ": this program was built without libpng; build it with it, or pass raw pixels (.raw)");
}
#endif

std::vector<std::uint8_t> read_raw(const std::filesystem::path& path, const InputSpec& input) {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) throw InputError(path.string() + ": cannot be read: " + error.message());
    if (size != input.values()) {
        throw InputError(path.string() + ": has " + std::to_string(size) + " bytes; " + std::to_string(input.channels) +
                         " channels of " + size_text(input.width, input.height) + " have " +
                         std::to_string(input.values()));
    }
    std::vector<std::uint8_t> pixels(size);
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(size))) {
        throw InputError(path.string() + ": cannot be read");
    }
    return pixels;
}

std::uint8_t level(float share) { return static_cast<std::uint8_t>(std::lround(255 * std::clamp(share, 0.0f, 1.0f))); }

/// The position of the largest of the channels of a pixel, from 0 to 1.
std::vector<std::uint8_t> classes_view(const float* values, std::size_t channels, std::size_t area) {
    std::vector<std::uint8_t> view(area);
    for (std::size_t place = 0; place < area; ++place) {
        std::size_t best = 0;
        for (std::size_t channel = 1; channel < channels; ++channel) {
            if (values[channel * area + place] > values[best * area + place]) best = channel;
        }
        view[place] = level(static_cast<float>(best) / static_cast<float>(std::max<std::size_t>(channels - 1, 1)));
    }
    return view;
}

std::vector<std::uint8_t> depth_view(const float* values, std::size_t area) {
    const auto [near, far] = std::minmax_element(values, values + area);
    const float range = *far > *near ? *far - *near : 1;
    std::vector<std::uint8_t> view(area);
    for (std::size_t place = 0; place < area; ++place) view[place] = level((values[place] - *near) / range);
    return view;
}

std::vector<std::uint8_t> probability_view(const float* values, std::size_t area) {
    std::vector<std::uint8_t> view(area);
    for (std::size_t place = 0; place < area; ++place) view[place] = level(1 / (1 + std::exp(-values[place])));
    return view;
}

std::vector<std::uint8_t> normals_view(const float* values, std::size_t area) {
    std::vector<std::uint8_t> view(3 * area);
    for (std::size_t place = 0; place < area; ++place) {
        const float x = values[place], y = values[area + place], z = values[2 * area + place];
        const float length = std::max(std::sqrt(x * x + y * y + z * z), 1e-6f);
        for (std::size_t axis = 0; axis < 3; ++axis) {
            view[3 * place + axis] = level(values[axis * area + place] / length / 2 + 0.5f);
        }
    }
    return view;
}

}  // namespace

std::vector<std::uint8_t> read_pixels(const std::filesystem::path& path, const InputSpec& input) {
    return path.extension() == ".png" ? read_png(path.string(), input) : read_raw(path, input);
}

void write_bytes(const std::filesystem::path& path, const void* bytes, std::size_t count) {
    std::ofstream file(path, std::ios::binary);
    file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count));
    file.close();
    if (!file) throw gatedeploy::Error(path.string() + ": could not be written");
}

std::filesystem::path write_view(const std::filesystem::path& folder, const gatedeploy::Tensor& output,
                                 const gatedeploy::Task& task) {
    if (output.dtype != gatedeploy::DType::float32 || output.shape.size() != 4) return {};
    const auto channels = static_cast<std::size_t>(output.shape[1]);
    const std::int64_t height = output.shape[2], width = output.shape[3];
    const auto area = static_cast<std::size_t>(height * width);
    const float* values = output.data<float>();
    std::vector<std::uint8_t> view;
    if (task.kind == "segmentation") view = classes_view(values, channels, area);
    if (task.kind == "depth" && channels == 1) view = depth_view(values, area);
    if ((task.kind == "saliency" || task.kind == "edges") && channels == 1) view = probability_view(values, area);
    if (task.kind == "normals" && channels == 3) view = normals_view(values, area);
    if (view.empty()) return {};
    const bool colours = view.size() > area;
    const std::filesystem::path path = folder / (output.name + (colours ? ".ppm" : ".pgm"));
    const std::string head =
        (colours ? "P6\n" : "P5\n") + std::to_string(width) + " " + std::to_string(height) + "\n255\n";
    view.insert(view.begin(), head.begin(), head.end());
    write_bytes(path, view.data(), view.size());
    return path;
}
