#include "openvino_unsigned.hpp"

#include <algorithm>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/fake_quantize.hpp>
#include <openvino/op/subtract.hpp>

namespace gatedeploy {
namespace {

using ov::op::v0::Constant;
using ov::op::v0::Convert;

bool is_convert(const ov::Input<ov::Node>& port) { return ov::is_type<Convert>(port.get_node()); }

std::shared_ptr<ov::Node> constant(const ov::element::Type& type, float value) {
    return Constant::create(type, ov::Shape{}, {value});
}

}  // namespace

void write_unsigned(ov::Model& model) {
    for (const std::shared_ptr<ov::Node>& bytes : model.get_ordered_ops()) {
        if (!ov::is_type<Convert>(bytes) || bytes->get_output_element_type(0) != ov::element::i8) continue;
        const auto rounding = ov::as_type_ptr<ov::op::v0::FakeQuantize>(bytes->get_input_node_shared_ptr(0));
        const std::set<ov::Input<ov::Node>> readers = bytes->get_output_target_inputs(0);
        if (!rounding || !std::all_of(readers.begin(), readers.end(), is_convert)) continue;
        const ov::element::Type type = rounding->get_output_element_type(0);
        rounding->input(3).replace_source_output(constant(type, 0));    // the lowest value that it rounds to
        rounding->input(4).replace_source_output(constant(type, 255));  // and the highest
        const auto unsigned_bytes = std::make_shared<Convert>(rounding, ov::element::u8);
        for (const ov::Input<ov::Node>& reader : readers) {
            ov::Node* const numbers = reader.get_node();
            const auto read = std::make_shared<Convert>(unsigned_bytes, numbers->get_output_element_type(0));
            numbers->output(0).replace(std::make_shared<ov::op::v1::Subtract>(read, constant(type, 128)));
        }
    }
    model.validate_nodes_and_infer_types();
}

}  // namespace gatedeploy
