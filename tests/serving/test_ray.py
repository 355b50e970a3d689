"""Ray Serve: what docs/serving/ shows, run by a stand-in, and for real where Ray is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gatedeploy.exporters import Bundle
from gatedeploy.runners.base import Array
from tests.exporters.networks import PARTS, SCENE
from tests.serving.page import ASKING_RAY, EXAMPLES, ROOT, answers, assert_same, load, of_module, pictures

# Tests that share the bundle are run by one process.
pytestmark = pytest.mark.xdist_group("serving")


def ray_stand_in() -> dict[str, ModuleType]:
    """As much of Ray Serve and Starlette as the example touches; calls that wait at the same time are one batch."""

    def batch(max_batch_size: int, batch_wait_timeout_s: float) -> Callable[[Any], Any]:
        def decorate(method: Any) -> Any:
            waiting: list[tuple[Any, asyncio.Future[Any]]] = []

            async def one(self: Any, item: Any) -> Any:
                waiting.append((item, asyncio.get_running_loop().create_future()))
                mine = waiting[-1][1]
                await asyncio.sleep(0)
                taken, waiting[:] = waiting[:max_batch_size], waiting[max_batch_size:]
                if taken:
                    for (_, future), result in zip(taken, await method(self, [item for item, _ in taken]), strict=True):
                        future.set_result(result)
                return await mine

            return one

        return decorate

    def response(content: Any, status_code: int = 200, media_type: str = "") -> SimpleNamespace:
        return SimpleNamespace(content=content, status_code=status_code)

    serve = of_module("ray.serve", deployment=lambda **_: lambda cls: cls, batch=batch)
    return {
        "ray": of_module("ray", serve=serve),
        "starlette.requests": of_module("starlette.requests", Request=object),
        "starlette.responses": of_module("starlette.responses", Response=response),
    }


def unpacked(content: bytes) -> dict[str, Array]:
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def test_ray_serves_what_comes_in_together_as_one_batch(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in ray_stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    served = load(EXAMPLES / "serve_bundle.py").ServedBundle(str(bundle.path), threads=1)
    sizes, infer = [], served.runner.infer

    def counted(feed: Mapping[str, Array]) -> dict[str, Array]:
        sizes.append(len(feed["image"]))
        return dict(infer(feed))

    monkeypatch.setattr(served.runner, "infer", counted)
    batch = pictures(20)

    async def ask(body: bytes) -> Any:
        async def content() -> bytes:
            return body

        return await served(SimpleNamespace(body=content))

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(body) for body in (*map(bytes, batch), b"half a picture")))

    *good, bad = asyncio.run(ask_all())
    assert (bad.status_code, bad.content) == (400, "got 14 bytes, expected 768: one picture of float32 (3, 8, 8)\n")
    assert sizes == [16, 4]
    each = [unpacked(response.content) for response in good]
    assert_same({name: np.stack([one[name] for one in each]) for name in each[0]}, answers(bundle, batch))
    assert all(tuple(one["parts.classes"]) == PARTS.classes for one in each)


@pytest.mark.slow
def test_ray_serve_answers_over_http(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, batch = f"http://127.0.0.1:{port}/", pictures(300)

    def ask(picture: Array) -> dict[str, Array]:
        with urllib.request.urlopen(url, data=picture.tobytes(), timeout=60) as response:
            return unpacked(response.read())

    environment = {"env_vars": {"PYTHONPATH": f"{EXAMPLES}:{ROOT}"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(importlib.import_module("serve_bundle").app({"bundle": str(bundle.path), "threads": "1"}))
        with ThreadPoolExecutor(32) as pool:
            each = list(pool.map(ask, batch))
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error 400"):
            ask(batch[0, :1])
        seen: dict[str, Any] = {}
        exec(ASKING_RAY.replace("http://127.0.0.1:8000/", url).replace("64, 64", "8, 8"), seen)
    finally:
        serve.shutdown()
        ray.shutdown()
    assert_same({name: np.stack([one[name] for one in each]) for name in each[0]}, answers(bundle, batch))
    assert str(seen["answer"]["scene.class"]) in SCENE.classes
