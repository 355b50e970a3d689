"""A bundle behind HTTP, with Ray Serve.

serve run --app-dir docs/serving serve_bundle:app bundle=/path/of/bundle

A request is one picture: float32 numbers, little-endian, channels first, prepared as the bundle's README says. The
answer is an `.npz` file of arrays by name: every output, and beside it `OUTPUT.class`, the class that a picture is
of, or `OUTPUT.classes`, the names of the classes of a map.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

import gatedeploy as gd
from gatedeploy.exporters import read_bundle

Array = npt.NDArray[Any]

MAX_BATCH = 16
MAX_WAIT = 0.005
"""Seconds for which a picture waits for others."""


# Ray hands a replica five requests at a time unless told otherwise, and no batch would be larger.
@serve.deployment(max_ongoing_requests=4 * MAX_BATCH)
class ServedBundle:
    """A network, opened once in each replica.

    Args:
        bundle: its folder.
        runtime: what runs it, as `gd.open` calls it.
        threads: how many threads compute one batch.
    """

    def __init__(self, bundle: str, runtime: str = "onnxruntime", threads: int | None = None) -> None:
        self.manifest = read_bundle(bundle).manifest
        self.runner = gd.open(bundle, runtime=runtime, threads=threads)
        self.tasks = {task.name: task for task in self.manifest.tasks}

    async def __call__(self, request: Request) -> Response:
        """Answer one request over HTTP."""
        shape, body = self.manifest.input.shape, await request.body()
        expected = 4 * int(np.prod(shape))
        if len(body) != expected:
            told = f"got {len(body):,} bytes, expected {expected:,}: one picture of float32 {shape}\n"
            return Response(told, status_code=400, media_type="text/plain")
        answer = await self.answer(np.frombuffer(body, "<f4").reshape(shape))
        packed = io.BytesIO()
        np.savez(packed, **answer)
        return Response(packed.getvalue(), media_type="application/octet-stream")

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT)
    async def answer(self, pictures: list[Array]) -> list[dict[str, Array]]:
        """Answer the pictures that came in meanwhile in one batch; callers give and get one."""
        batch = np.stack(pictures).astype(np.float32)
        predicted = await asyncio.to_thread(self.runner.infer, {self.manifest.input.name: batch})
        return [self.named({name: values[place] for name, values in predicted.items()}) for place in range(len(batch))]

    def named(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """One picture's outputs, and the names of classes."""
        names: dict[str, Array] = {}
        for output, values in outputs.items():
            task = self.tasks[self.manifest.task_of[output]]
            if task.kind == "classification" and values.shape == (len(task.classes),):
                names[f"{output}.class"] = np.array(task.classes[int(values.argmax())])
            elif task.classes:
                names[f"{output}.classes"] = np.array(task.classes)
        return outputs | names


def app(args: dict[str, str]) -> serve.Application:
    """What `serve run` starts; `bundle=`, `runtime=` and `threads=` on its command line arrive here."""
    threads = int(args["threads"]) if "threads" in args else None
    return ServedBundle.bind(args["bundle"], args.get("runtime", "onnxruntime"), threads)
