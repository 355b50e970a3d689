// Bytes as OpenVINO computes with them.
#pragma once

#include <openvino/core/model.hpp>

namespace gatedeploy {

/// Writes signed bytes as unsigned ones with a zero point of 128; the numbers are the same.
///
/// OpenVINO turns signed bytes into these itself, and where the values of a concatenation are rounded it forgets their
/// zero point (2026.4): layers that read them are off by a third of their scale. One that is written out it keeps.
void write_unsigned(ov::Model& model);

}  // namespace gatedeploy
