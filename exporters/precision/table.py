"""The precisions that a network can be exported in, and what each of them needs; all else asks this table."""

from __future__ import annotations

from dataclasses import dataclass

from gatedeploy.parity import FLOAT32


@dataclass(frozen=True)
class Precision:
    """What there is to know of a precision.

    Args:
        tolerance: how far two runtimes may be apart that compute the same network, relative to an output's scale.
        half: ONNX's name of the 16-bit type that layers compute in; "" where they compute in another.
        largest: the largest number of that type.
        eight_bits: whether ranges of values are calibrated and rounded to 8 bits.
        opset: the version of ONNX's operators in which convolutions know the type; None: that of every export.
        optimized: whether ONNX Runtime's optimiser leaves a network what it is.
        unfit: why ONNX Runtime cannot be given it on a processor; "" where it can.
    """

    tolerance: float
    half: str = ""
    largest: float = 0.0
    eight_bits: bool = False
    opset: int | None = None
    optimized: bool = True
    unfit: str = ""

    @property
    def reduced(self) -> bool:
        """Whether a network computes something else in it than it was trained to, which has to be judged."""
        return self.eight_bits or bool(self.half)

    @property
    def emulated(self) -> bool:
        """Whether ONNX Runtime runs it on a processor in float32, every value rounded."""
        return bool(self.half and self.unfit)


PRECISIONS = {
    "fp32": Precision(FLOAT32),
    # 8 to 10 roundings of 2⁻¹¹
    "tf32": Precision(1e-2),
    "fp16": Precision(1e-2, half="float16", largest=65504.0),
    # as many of 2⁻⁸, with float32's exponent
    "bf16": Precision(
        5e-2,
        half="bfloat16",
        largest=3.3895e38,
        opset=22,
        unfit="for which onnxruntime has no kernels on processors",
    ),
    # A value on the border of two steps falls this way here and that way there. Each step is a hundredth of the range
    # in int8, up to a sixteenth of the value in fp8.
    "int8": Precision(1e-1, eight_bits=True),
    "fp8": Precision(
        2e-1,
        eight_bits=True,
        optimized=False,
        unfit="of which onnxruntime's optimiser makes something else on processors",
    ),
}

REDUCED = tuple(name for name, precision in PRECISIONS.items() if precision.reduced)
EIGHT_BITS = tuple(name for name, precision in PRECISIONS.items() if precision.eight_bits)
