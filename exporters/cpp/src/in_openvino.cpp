// OpenVINO on the CPU: its own format, or the ONNX file.
#include <algorithm>
#include <openvino/openvino.hpp>
#include <thread>

#include "backend.hpp"
#include "gatedeploy/errors.hpp"
#include "openvino_unsigned.hpp"
#include "ports.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

/// The last line: those before it name places in the library.
std::string reason(const std::exception& error) {
    std::string text = error.what();
    text.erase(text.find_last_not_of(" \n\t") + 1);
    return text.substr(text.find_last_of('\n') + 1);
}

std::vector<std::int64_t> sizes(const ov::PartialShape& shape) {
    std::vector<std::int64_t> result;
    if (shape.rank().is_dynamic()) return result;
    for (const ov::Dimension& size : shape) result.push_back(size.is_static() ? size.get_length() : -1);
    return result;
}

std::string dtype_of(const ov::element::Type& type) {
    const std::pair<ov::element::Type, const char*> kNames[] = {
        {ov::element::boolean, "bool"}, {ov::element::u8, "uint8"},    {ov::element::i8, "int8"},
        {ov::element::i32, "int32"},    {ov::element::i64, "int64"},   {ov::element::f16, "float16"},
        {ov::element::f32, "float32"},  {ov::element::f64, "float64"},
    };
    for (const auto& [each, name] : kNames) {
        if (each == type) return name;
    }
    return type.get_type_name();
}

std::vector<Port> ports(const std::vector<ov::Output<const ov::Node>>& all) {
    std::vector<Port> result;
    for (const auto& port : all) {
        result.push_back({port.get_any_name(), dtype_of(port.get_element_type()), sizes(port.get_partial_shape())});
    }
    return result;
}

class OpenVinoRequest : public Request {
public:
    OpenVinoRequest(ov::CompiledModel& model, const InputSpec& image)
        : image_(image), request_(model.create_infer_request()) {
        for (const auto& output : model.outputs()) types_.push_back(output.get_element_type());
    }

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        try {
            bind(pictures, batch, outputs);
            request_.infer();
            for (std::size_t position = 0; position < outputs.size(); ++position) check(position, outputs[position]);
        } catch (const ov::Exception& error) {
            throw Error("openvino failed: " + reason(error));
        }
    }

private:
    /// It computes in the caller's memory. Nothing is bound anew, which would allocate, where that is still the same.
    void bind(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) {
        std::vector<void*>& now = places_;
        bool same = batch == batch_ && now.size() == outputs.size() + 1 && now[0] == pictures;
        for (std::size_t position = 0; same && position < outputs.size(); ++position) {
            same = now[position + 1] == outputs[position].bytes.data();
        }
        if (same) return;
        now.clear();                                 // until all are bound
        void* image = const_cast<float*>(pictures);  // it only reads an input
        const auto size = [](std::int64_t each) { return static_cast<std::size_t>(each); };
        const ov::Shape shape = {size(batch), size(image_.channels), size(image_.height), size(image_.width)};
        request_.set_input_tensor(ov::Tensor(ov::element::f32, shape, image));
        std::vector<void*> bound = {image};
        for (std::size_t position = 0; position < outputs.size(); ++position) {
            Tensor& output = outputs[position];
            const ov::Shape wanted(output.shape.begin(), output.shape.end());
            request_.set_output_tensor(position, ov::Tensor(types_[position], wanted, output.bytes.data()));
            bound.push_back(output.bytes.data());
        }
        now = std::move(bound);
        batch_ = batch;
    }

    /// Where a network returns fewer values than was said, the library only changes the shape.
    void check(std::size_t position, const Tensor& output) {
        const ov::Tensor tensor = request_.get_output_tensor(position);
        const ov::Shape& shape = tensor.get_shape();
        if (std::equal(shape.begin(), shape.end(), output.shape.begin(), output.shape.end(),
                       [](std::size_t got, std::int64_t said) { return got == static_cast<std::size_t>(said); })) {
            if (tensor.data() == output.bytes.data()) return;
        }
        check_shape(output, {shape.begin(), shape.end()});
        throw Error("openvino failed: it left output " + in_quotes(output.name) + " elsewhere");
    }

    InputSpec image_;
    ov::InferRequest request_;
    std::vector<ov::element::Type> types_;
    std::vector<void*> places_;  // of the picture and the outputs that are bound
    std::int64_t batch_ = 0;
};

class OpenVinoBackend : public Backend {
public:
    explicit OpenVinoBackend(const Source& source) : image_(source.bundle.manifest.input) {
        const std::shared_ptr<ov::Model> model = core_.read_model(source.file.string());
        write_unsigned(*model);
        model_ = core_.compile_model(model, "CPU", settings(source.threads));
        check_ports(source.bundle.manifest, source.batches(), ports(model_.inputs()), ports(model_.outputs()));
    }

    std::unique_ptr<Request> request() override { return std::make_unique<OpenVinoRequest>(model_, image_); }

private:
    static ov::AnyMap settings(int threads) {
        // Unless told otherwise it rounds float32 to bfloat16 on processors with instructions for it.
        ov::AnyMap result = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                             ov::hint::inference_precision(ov::element::f32)};
        // A stream computes one call at a time, and the number of threads is that of all streams together.
        const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
        const int streams = threads > 0 ? std::max(1, processors / threads) : 1;
        result.insert(ov::num_streams(streams));
        if (threads > 0) result.insert(ov::inference_num_threads(streams * threads));
        return result;
    }

    InputSpec image_;
    ov::Core core_;
    ov::CompiledModel model_;
};

}  // namespace

std::unique_ptr<Backend> open_openvino(const Source& source) {
    try {
        return std::make_unique<OpenVinoBackend>(source);
    } catch (const ov::Exception& error) {
        throw InputError("openvino cannot load it (" + reason(error) + "); write or copy it again");
    }
}

}  // namespace gatedeploy
