// ONNX Runtime on the CPU.
#include <onnxruntime_cxx_api.h>

#include "backend.hpp"
#include "gatedeploy/errors.hpp"
#include "ports.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

struct TypeName {
    ONNXTensorElementDataType type;
    DType dtype;
};

constexpr TypeName kTypes[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, DType::boolean},  {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, DType::uint8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, DType::int8},     {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, DType::int32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, DType::int64},   {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, DType::float16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, DType::float32}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, DType::float64},
};

ONNXTensorElementDataType type_of(DType dtype) {
    for (const TypeName& each : kTypes) {
        if (each.dtype == dtype) return each.type;
    }
    throw Error("a type that ONNX Runtime does not have");
}

std::string dtype_of(ONNXTensorElementDataType type) {
    for (const TypeName& each : kTypes) {
        if (each.type == type) return name_of(each.dtype);
    }
    return "another type";
}

Port port(const std::string& name, const Ort::TypeInfo& info) {
    const auto tensor = info.GetTensorTypeAndShapeInfo();
    return {name, dtype_of(tensor.GetElementType()), tensor.GetShape()};
}

std::vector<Port> inputs_of(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<Port> result;
    for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
        result.push_back(port(session.GetInputNameAllocated(i, allocator).get(), session.GetInputTypeInfo(i)));
    }
    return result;
}

std::vector<Port> outputs_of(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<Port> result;
    for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
        result.push_back(port(session.GetOutputNameAllocated(i, allocator).get(), session.GetOutputTypeInfo(i)));
    }
    return result;
}

class OnnxRuntimeRequest : public Request {
public:
    OnnxRuntimeRequest(Ort::Session& session, const Manifest& manifest)
        : session_(session), image_(manifest.input), specs_(manifest.outputs) {
        for (const OutputSpec& spec : specs_) names_.push_back(spec.name.c_str());
    }

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        try {
            const std::int64_t shape[] = {batch, image_.channels, image_.height, image_.width};
            const std::size_t values = image_.values() * static_cast<std::size_t>(batch);
            // It only reads an input.
            const Ort::Value image =
                Ort::Value::CreateTensor<float>(memory_, const_cast<float*>(pictures), values, shape, 4);
            // It computes in the caller's memory, and refuses to where the shape is another one.
            values_.clear();
            for (Tensor& output : outputs) {
                values_.push_back(Ort::Value::CreateTensor(memory_, output.bytes.data(), output.bytes.size(),
                                                           output.shape.data(), output.shape.size(),
                                                           type_of(output.dtype)));
            }
            const char* name = image_.name.c_str();
            session_.Run(run_, &name, &image, 1, names_.data(), values_.data(), values_.size());
        } catch (const Ort::Exception& error) {
            throw Error(std::string("onnxruntime failed: ") + error.what());
        }
    }

private:
    Ort::Session& session_;
    InputSpec image_;
    std::vector<OutputSpec> specs_;
    std::vector<const char*> names_;
    std::vector<Ort::Value> values_;
    Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::RunOptions run_;
};

class OnnxRuntimeBackend : public Backend {
public:
    explicit OnnxRuntimeBackend(const Source& source)
        : manifest_(source.bundle.manifest),
          environment_(ORT_LOGGING_LEVEL_FATAL, "gatedeploy"),  // what it has to say is thrown
          session_(environment_, source.file.c_str(), settings(source.threads)) {
        check_ports(manifest_, source.batches(), inputs_of(session_), outputs_of(session_));
    }

    std::unique_ptr<Request> request() override { return std::make_unique<OnnxRuntimeRequest>(session_, manifest_); }

private:
    static Ort::SessionOptions settings(int threads) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetInterOpNumThreads(1);
        return options;
    }

    Manifest manifest_;
    Ort::Env environment_;
    Ort::Session session_;
};

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const Source& source) {
    try {
        return std::make_unique<OnnxRuntimeBackend>(source);
    } catch (const Ort::Exception& error) {
        throw InputError("onnxruntime cannot load it (" + std::string(error.what()) + "); write or copy it again");
    }
}

}  // namespace gatedeploy
