"""A bundle in Triton's Python backend, which runs what `gd.open` runs and answers with names of classes.

repository/NAME/config.pbtxt
repository/NAME/1/model.py
repository/NAME/1/bundle/

Triton calls `TritonPythonModel`: github.com/triton-inference-server/python_backend, README.md. Its Python has to have
gatedeploy: install it in the container, or name an environment (EXECUTION_ENV_PATH) in `config.pbtxt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

import gatedeploy as gd
from gatedeploy.exporters import read_bundle
from gatedeploy.exporters.manifest import Manifest
from gatedeploy.exporters.triton_config import MAX_BATCH, TYPES
from gatedeploy.runners.base import TensorSpec, check_feed

BUNDLE = Path(__file__).with_name("bundle")
RUNTIME = "onnxruntime"

Array = npt.NDArray[Any]


class TritonPythonModel:
    """A network; each of Triton's instances of the model opens it once."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Tell Triton what the network takes and returns, so that `config.pbtxt` need not."""
        manifest = read_bundle(BUNDLE).manifest
        config.set_max_batch_size(MAX_BATCH)
        config.set_dynamic_batching()
        image = manifest.input
        config.add_input({"name": image.name, "data_type": "TYPE_FP32", "dims": list(image.shape)})
        for spec in manifest.outputs:
            sizes = [size if isinstance(size, int) else -1 for size in spec.shape[1:]]
            config.add_output({"name": spec.name, "data_type": TYPES[spec.dtype], "dims": sizes})
        for output in classes_of(manifest):
            config.add_output({"name": f"{output}.class", "data_type": "TYPE_STRING", "dims": [1]})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network."""
        self.manifest = read_bundle(BUNDLE).manifest
        self.classes = classes_of(self.manifest)
        self.runner = gd.open(BUNDLE, runtime=RUNTIME)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, which hold one picture or several each, in one batch.

        A request that does not fit is answered with an error, and the others as if it were not there.
        """
        feeds, answers = [self._feed(request) for request in requests], []
        pictures = [feed for feed in feeds if isinstance(feed, np.ndarray)]
        predicted = self.runner.infer({self.manifest.input.name: np.concatenate(pictures)}) if pictures else {}
        first = 0
        for feed in feeds:
            if isinstance(feed, np.ndarray):
                answers.append(
                    self._answer({name: values[first : first + len(feed)] for name, values in predicted.items()})
                )
                first += len(feed)
            else:
                error = pb_utils.TritonError(str(feed), pb_utils.TritonError.INVALID_ARG)
                answers.append(pb_utils.InferenceResponse(error=error))
        return answers

    def finalize(self) -> None:
        """Let go of the network."""
        self.runner.close()

    def _feed(self, request: Any) -> Array | gd.InputError:
        """The pictures of a request, or what is wrong with them."""
        name = self.manifest.input.name
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        feed = {} if tensor is None else {name: tensor.as_numpy()}
        try:
            check_feed(feed, self.runner.inputs)
        except gd.InputError as error:
            return error
        return feed[name]

    def _answer(self, outputs: dict[str, Array]) -> Any:
        for output, classes in self.classes.items():
            best = outputs[output].argmax(1)
            outputs[f"{output}.class"] = np.array([[classes[place]] for place in best], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in outputs.items()])


def classes_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """By output, the class names of the outputs that hold one score per class."""

    def scores(spec: TensorSpec) -> bool:
        task = tasks[manifest.task_of[spec.name]]
        return task.kind == "classification" and spec.shape[1:] == (len(task.classes),)

    tasks = {task.name: task for task in manifest.tasks}
    return {spec.name: tasks[manifest.task_of[spec.name]].classes for spec in manifest.outputs if scores(spec)}
