"""The rates of a GPU and its machine, that other figures are read against: products of matrices, copies, JPEGs decoded."""

import io
import sys
import time
from functools import partial
from multiprocessing import get_context
from statistics import median

import numpy as np
import torch

from tests.benchmarks.harness import machine
from tests.benchmarks.material import PHOTO, picture


def seconds(function, repeats=10):
    """The median time of a function on the GPU."""
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return median(times[3:])


def decode(image, transform):
    """Images a second that one process decodes and brings to 224 pixels."""
    from PIL import Image

    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 2:
        transform(Image.open(io.BytesIO(image)))
        count += 1
    return count / (time.perf_counter() - began)


def main():
    from wisepatch import ModelConfig, load_clip

    sys.stdout.write(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {machine()}\n")
    for name, dtype, size in (("bf16", torch.bfloat16, 8192), ("fp32", torch.float32, 8192)):
        one, other = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        rate = 2 * size**3 / seconds(partial(torch.mm, one, other))
        sys.stdout.write(f"product of {size} x {size} in {name}: {rate / 1e12:.0f} Tflop/s\n")
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    sys.stdout.write(
        f"copy on the GPU, read and written: {2 * 2**30 / seconds(lambda: target.copy_(source)) / 1e12:.2f} TB/s\n"
    )
    pinned = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    sys.stdout.write(f"copy to the GPU: {2**28 / seconds(lambda: target[: 1 << 28].copy_(pinned)) / 1e9:.1f} GB/s\n")
    buffer = io.BytesIO()
    picture(np.random.default_rng(0), 3, PHOTO).save(buffer, "JPEG", quality=90)
    torch.set_num_threads(1)
    with torch.device("cpu"):
        transform = load_clip(ModelConfig("demo", "")).pixels
    for workers in (1, machine()["cores"]):
        with get_context("fork").Pool(workers) as pool:
            rates = pool.starmap(decode, [(buffer.getvalue(), transform)] * workers)
        sys.stdout.write(f"JPEGs of {PHOTO[0]} x {PHOTO[1]} to 64 pixels, {workers} processes: {sum(rates):.0f}/s\n")


if __name__ == "__main__":
    main()
