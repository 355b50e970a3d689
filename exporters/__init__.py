"""Writers of the formats that leave the program, the bundle that holds them, and what opens it again."""

from gatedeploy.exporters.bundle import export, write_bundle
from gatedeploy.exporters.checking import BundleCheck, verify_bundle
from gatedeploy.exporters.opening import open_runner
from gatedeploy.exporters.plain_gates import plain_gates
from gatedeploy.exporters.reading import Bundle, read_bundle
from gatedeploy.exporters.to_onnx import export_onnx

__all__ = [
    "Bundle",
    "BundleCheck",
    "export",
    "export_onnx",
    "open_runner",
    "plain_gates",
    "read_bundle",
    "verify_bundle",
    "write_bundle",
]
