"""W8: one start and several ends on disk, their merge on disk, by methods of every kind, and measured on an image."""

import os
import threading
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import measure

ENDS, SCALE = 8, 0.3
METHODS = ("task-arithmetic", "ties", "dare", "model-stock", "iso-c", "tsv-m")
MEASURED = ("task-arithmetic", "dare")  # one that mixes all ends for each candidate, one whose task vector is kept
POLL_SECONDS = 0.01


def several_models(clock, folder, model, ends):
    """A start and ends whose image towers differ from it; two ends by turns have the same numbers, to spare the disk."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = open_clip.create_model(model, pretrained=None, load_weights=False)
    start = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(start, folder / "start.safetensors")
    for number in range(2):
        moved = {
            name: tensor + 0.01 * torch.randn_like(tensor) if name.startswith("visual.") else tensor
            for name, tensor in start.items()
        }
        save_file(moved, folder / f"end{number}.safetensors")
    for number in range(2, ends):
        os.link(folder / f"end{number % 2}.safetensors", folder / f"end{number}.safetensors")
    return (folder / "start.safetensors").stat().st_size


def own_megabytes():
    """The memory of this process that no file backs: pages of mapped files can be dropped, and read again."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Watch:
    """Notes the most of its own memory that this process holds within."""

    def __enter__(self):
        self.before = self.most = own_megabytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._poll)
        self.thread.start()
        return self

    def _poll(self):
        while not self.done.wait(POLL_SECONDS):
            self.most = max(self.most, own_megabytes())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.more = self.most - self.before


def all_in_memory(clock, folder, ends):
    """Task arithmetic as published: all state dicts loaded, task vectors made, added up, and the sum saved."""
    import torch
    from safetensors.torch import load_file, save_file

    with Watch() as watch, clock, torch.no_grad():
        start = {name: tensor.clone() for name, tensor in load_file(folder / "start.safetensors").items()}
        vectors = []
        for number in range(ends):
            end = {name: tensor.clone() for name, tensor in load_file(folder / f"end{number}.safetensors").items()}
            vectors.append({name: end[name] - start[name] for name in start})
        merged = {name: start[name] + SCALE * sum(vector[name] for vector in vectors) for name in start}
        save_file(merged, folder / "sum.safetensors")
    return watch.more


def merge(clock, folder, ends, method):
    """Wisepatch, from file to file; torch is imported before, as it is for the loop."""
    import torch

    from wisepatch.plugins import find_merge_method
    from wisepatch.weights.parameters import read_params
    from wisepatch.weights.streaming import stream_weights

    own = find_merge_method(method)
    words = [f"alpha={SCALE}"] if method == "task-arithmetic" else []
    (params,) = read_params(own, words, ends)
    torch.zeros(1).add_(1)
    paths = [folder / "start.safetensors", *(folder / f"end{number}.safetensors" for number in range(ends))]
    with Watch() as watch, clock:
        stream_weights(own, paths, params, folder / f"{method}.safetensors")
    return watch.more


def stored(clock, folder, model, ends):
    """Start and ends as checkpoints of a store, whose files are links to them."""
    from wisepatch import ModelConfig, Store
    from wisepatch.files import sha256

    def save(name, kind, **more):
        def write(path):
            os.link(folder / f"{name}.safetensors", path)
            return sha256(path)

        return store.save(write, kind=kind, name=name, model=ModelConfig(model, "openai").to_json(), **more)

    store = Store(folder / "store")
    start = save("start", "zeroshot", training="zeroshot")
    for number in range(ends):
        save(f"end{number}", "finetuned", training="paint", trained_from=[start.id])


def measured(clock, folder, ends, method):
    """Wisepatch, as it measures a candidate: ends read and verified, merged into the working image tower, which sees an image."""
    import open_clip  # noqa: F401 -- libraries are not what is measured
    import torch

    from wisepatch import Store
    from wisepatch.config import EvalConfig
    from wisepatch.evaluation.endpoints import Endpoints, mixes_of
    from wisepatch.evaluation.passes import Pass
    from wisepatch.plugins import find_merge_method
    from wisepatch.progress import Silent
    from wisepatch.store.checkpoints import Recipe
    from wisepatch.weights.parameters import read_params

    store = Store(folder / "store")
    parents = [store.find(name) for name in ("start", *(f"end{number}" for number in range(ends)))]
    (params,) = read_params(find_merge_method(method), [], ends)
    recipe = Recipe(method, tuple(parent.id for parent in parents), params)
    merge = store.save(None, kind="merged", name=method, model=parents[0].model, recipe=recipe)
    with Watch() as watch, clock, torch.inference_mode():
        endpoints = Endpoints(store, torch.device("cpu"))
        (mix,) = mixes_of([merge], endpoints)
        tower = Pass([mix], endpoints, EvalConfig(batch_size=1), Silent()).tower
        mix.set_weights(tower.visual)
        tower.features(tower.take(torch.zeros(1, 3, 224, 224)))
    return watch.more


def difference(clock, folder):
    """The largest difference between wisepatch's sum and that of the loop."""
    from safetensors.torch import load_file

    mine, theirs = load_file(folder / "task-arithmetic.safetensors"), load_file(folder / "sum.safetensors")
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)


def b32(bench):
    """Merges of ViT-B/32."""
    yield from several(bench, "ViT-B-32")


def l14(bench):
    """Merges of ViT-L/14: 10 GB of disk, and an hour."""
    yield from several(bench, "ViT-L-14")


def several(bench, model):
    """Task arithmetic in memory beside wisepatch's, and every other method by itself: seconds, and memory beside mapped files."""
    model, ends = ("ViT-S-32", 3) if bench.quick else (model, ENDS)
    size = bench.do(several_models, folder=bench.folder, model=model, ends=ends)
    variant = f"{model}, a start and {ends} ends of {size / 1e9:.2g} GB"
    loop = [measure(all_in_memory, "fresh", folder=bench.folder, ends=ends)]
    for method in METHODS:
        mine = [measure(partial(merge, method=method), "fresh", folder=bench.folder, ends=ends)]
        bench.say(f"{method}: {mine[0].wall:.3g} s")
        same = method == "task-arithmetic"
        off = bench.do(difference, folder=bench.folder) if same else None
        note = f"{mine[0].result:.0f} MB beside mapped files" + (f", the loop {loop[0].result:.0f} MB" if same else "")
        agree = off <= 1e-5 if same else mine[0].result < 2 * size / 1e6
        more = {"own_mb": mine[0].result, "bytes": size}
        yield bench.row(f"{variant}: {method}", loop if same else (), mine, agree, None, note, **more)
    bench.do(stored, folder=bench.folder, model=model, ends=ends)
    for method in MEASURED:
        mine = [measure(partial(measured, method=method), "fresh", folder=bench.folder, ends=ends)]
        own = mine[0].result
        note = f"{own:.0f} MB beside mapped files"
        yield bench.row(f"{variant}: {method}, measured", (), mine, own < 2 * size / 1e6, None, note, own_mb=own)
