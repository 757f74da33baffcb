"""W4: two models on disk, their mix on disk. This module imports neither torch nor numpy itself."""

import os
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import measure

ALPHA = 0.5
CHUNK = 1 << 24


def two_models(clock, folder, model):
    """The same two models as safetensors files and as pickled modules."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = open_clip.create_model(model, pretrained=None, load_weights=False)
    for number in (0, 1):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        # As read back from a file, each tensor is whole and its own.
        save_file(
            {name: tensor.contiguous() for name, tensor in module.state_dict().items()},
            folder / f"{number}.safetensors",
        )
        torch.save(module, folder / f"{number}.pt")
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def whole_modules(clock, folder):
    """The papers' way: both modules loaded, their state dicts copied, mixed, loaded into one of them, and that saved."""
    import open_clip  # noqa: F401 -- its classes are what is unpickled; the import is not measured

    from tests.benchmarks import reference

    with clock:
        start, end = (reference.load(folder / f"{number}.pt") for number in (0, 1))
        theta_0, theta_1 = ({k: v.clone() for k, v in module.state_dict().items()} for module in (start, end))
        del start
        end.load_state_dict(reference.mixed(theta_0, theta_1, ALPHA))
        reference.save(end, folder / "mixed.pt")


def dict_of_tensors(clock, folder):
    """Both safetensors files loaded, a dict comprehension, saved."""
    from safetensors.torch import load_file, save_file

    with clock:
        theta_0, theta_1 = (load_file(folder / f"{number}.safetensors") for number in (0, 1))
        save_file({k: (1 - ALPHA) * theta_0[k] + ALPHA * theta_1[k] for k in theta_0}, folder / "dict.safetensors")


def read_and_copy(clock, folder, durable=False):
    """The floor: one file is read and the other is copied, through one buffer; ``durable``: until the disk has it, as wisepatch."""
    buffer = memoryview(bytearray(CHUNK))
    with clock:
        with (folder / "0.safetensors").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        with (
            (folder / "1.safetensors").open("rb", buffering=0) as file,
            (folder / "copy").open("wb", buffering=0) as out,
        ):
            while count := file.readinto(buffer):
                out.write(buffer[:count])
            if durable:
                os.fsync(out.fileno())


def merge_files(clock, folder):
    """Wisepatch; torch is imported before, as it is for the others."""
    import torch  # noqa: F401

    from wisepatch.weights import streaming as merging

    with clock:
        merging.merge_files(folder / "0.safetensors", folder / "1.safetensors", ALPHA, folder / "merged.safetensors")


def compare(clock, folder):
    """The largest difference between wisepatch's file and the papers' module, and whether names and types are the same."""
    import open_clip  # noqa: F401 -- as above
    from safetensors.torch import load_file

    from tests.benchmarks import reference

    mine, theirs = load_file(folder / "merged.safetensors"), reference.load(folder / "mixed.pt").state_dict()
    same = set(mine) == set(theirs) and all(mine[k].dtype == theirs[k].dtype for k in mine)
    return same, max(float((mine[k].float() - theirs[k].float()).abs().max()) for k in mine)


def merge(bench):
    """The papers' whole modules, a dict comprehension and a mere copy beside ``merge_files``, each in a new process."""
    model = "ViT-S-32" if bench.quick else "ViT-L-14"
    size = bench.do(two_models, folder=bench.folder, model=model)
    jobs = {
        "whole modules": whole_modules,
        "dict of tensors": dict_of_tensors,
        "read one, copy the other": read_and_copy,
        "the same, until the disk has it": partial(read_and_copy, durable=True),
    }
    if there := (Path(__file__).parents[2] / "wisepatch" / "weights" / "streaming.py").is_file():
        jobs["wisepatch"] = merge_files
    found = bench.alternate({name: partial(measure, job, "fresh", folder=bench.folder) for name, job in jobs.items()})
    mine, agree, note, more = found.get("wisepatch", ()), None, "wisepatch.weights.streaming is not there yet", {}
    if there:
        same, off = bench.do(compare, folder=bench.folder)
        agree = same and off <= 1e-6
        note = f"differs by at most {off:.1e}"
        more = {"largest_difference": off}
    aims = {"whole modules": 20, "the same, until the disk has it": 1 / 1.5}
    for name in (name for name in jobs if name != "wisepatch"):
        variant = f"{model}, 2 x {size / 1e9:.2g} GB, reference: {name}"
        yield bench.row(variant, found[name], mine, agree, aims.get(name), note, bytes=size, **more)
