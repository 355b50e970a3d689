"""Less precision: written into ONNX files, calibrated and judged on real pictures."""
