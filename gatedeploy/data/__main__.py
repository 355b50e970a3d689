"""`python -m gatedeploy.data`: how many pictures of the built-in scenes one core of this machine draws in a second."""

from __future__ import annotations

import time

from gatedeploy.data.scenes import scene


def pictures_a_second(count: int, size: int = 64) -> float:
    """Draw pictures 0 to count − 1 of seed 0; the rate is per second of processor time, which leaves waiting out."""
    scene(0, 0, 0, size)
    begin = time.process_time()
    for index in range(count):
        scene(0, 0, index, size)
    return count / (time.process_time() - begin)


if __name__ == "__main__":
    rates = sorted(pictures_a_second(200) for _ in range(5))
    print(f"scenes, 64×64, one core: {rates[2]:.0f} pictures a second ({rates[0]:.0f} to {rates[-1]:.0f} in five runs)")
