"""Where the GPU's time goes in one batch of an image tower: PyTorch's profiler, kernels by name; in a graph, or compiled."""

import sys
import time
from functools import partial

import torch

from tests.benchmarks.gpu_rates import seconds
from tests.benchmarks.material import random_encoder
from wisepatch.models.tower import Tower

BATCH = 512
FLOP = {"ViT-B-32": 8.8e9, "ViT-L-14": 162e9}  # of an image


@torch.inference_mode()
def main(compiled):
    for model, flop in FLOP.items():
        clip = random_encoder(model)
        tower = Tower(clip.model.visual, torch.device("cuda"), torch.bfloat16, compiled=compiled)
        images = tower.take(torch.randn(BATCH, 3, *clip.image_size, device="cuda"))
        began = time.perf_counter()
        tower.features(images)
        torch.cuda.synchronize()
        first, taken = time.perf_counter() - began, seconds(partial(tower.features, images))
        rate = BATCH * flop / taken / 1e12
        sys.stdout.write(
            f"{model}, bf16, {BATCH} images{', compiled' if compiled else ''}: {1000 * taken:.2f} ms, {rate:.0f} Tflop/s;"
            f" the first batch {first:.1f} s\n"
        )
        if not compiled:
            sys.stdout.write(f"  in a graph: {in_a_graph(tower, images)}\n")
        show_kernels(tower, images)


def show_kernels(tower, images):
    """Print the kernels that take most of the time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        tower.features(images)
        torch.cuda.synchronize()
    for each in sorted(seen.key_averages(), key=lambda each: -each.self_device_time_total)[:8]:
        sys.stdout.write(f"  {each.self_device_time_total / 1000:8.2f} ms {each.count:4} x {each.key[:100]}\n")


def in_a_graph(tower, images):
    """The time of a batch that is replayed as a CUDA graph, or why it cannot be."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            tower.features(images)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return f"{1000 * seconds(graph.replay):.2f} ms"


if __name__ == "__main__":
    main("compiled" in sys.argv)
