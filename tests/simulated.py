"""A GPU for machines without one: it computes on the CPU, and a mix of devices is an error, as on a real one.

Tensors that were moved to ``cuda`` (or made there) are of the class :class:`OnGpu`: they say so when asked for their device, NumPy
cannot have them, and what is computed of them is on the GPU too. Autocast rounds as on a CPU. Not simulated: speed, memory,
kernels that round otherwise, the order in which a GPU works, compiled models, ``torch.func``.

PyTorch's own ``FakeTensorMode`` knows devices too, but no numbers: under it open_clip builds no model, no prediction comes back
to NumPy, and nothing can be written to a store or compared with the CPU.
"""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
GPU_BYTES = 8 << 30
TAKE_BOTH = ("copy_", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type")  # tensors of both devices
FUSED = ("_foreach_", "_fused_", "_amp_")  # an optimizer's, which look after single numbers themselves
ELEMENTWISE = (  # where a single number may come from the CPU
    "add", "sub", "mul", "div", "floordiv", "truediv", "pow", "radd", "rsub", "rmul", "rdiv", "rtruediv", "rpow", "iadd", "isub",
    "imul", "itruediv", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "where", "maximum", "minimum", "masked_fill", "clamp",
)  # fmt: skip
STAND_INS = {
    "is_available": lambda: True, "is_bf16_supported": lambda *_: True, "manual_seed_all": lambda _: None,
    "get_device_properties": lambda _=0: SimpleNamespace(total_memory=GPU_BYTES),
    "mem_get_info": lambda _=None: (GPU_BYTES, GPU_BYTES),
}  # fmt: skip


class OnGpu(torch.Tensor):
    """A tensor on the simulated GPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Watched(TorchFunctionMode):
    """Sees every function of PyTorch, those that make tensors too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def simulated_gpu():
    """Within this there is a GPU, as far as PyTorch says."""
    real = torch.autocast.__init__

    def autocast(self, device_type, *args, **kwargs):
        real(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    before = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for name, stand_in in STAND_INS.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", autocast))
        # An optimizer asks the real GPU for its streams.
        asks = "_accelerator_graph_capture_health_check"
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, asks, create=True))
        torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves changes its class
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        stack.enter_context(_Watched())
        yield


def _run(func, args, kwargs):
    name = func.__name__
    with torch._C.DisableTorchFunction():
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        if name == "__get__" and func in ATTRIBUTES:
            return ATTRIBUTES[func](bool(there))
        if name == "is_pinned":
            return False
        if name == "pin_memory":
            if there:
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
            return args[0]
        if name in ("to", "cpu", "cuda"):
            return _move(name, *args, **kwargs)
        _check(name, args, tensors, there)
        if name == "__deepcopy__":
            return _copy(*args)
        device = GPU if there and name != "tensor" else CPU
        if name == "copy_":
            device = GPU if isinstance(args[0], OnGpu) else CPU
        if kwargs.get("device") is not None and name != "Generator":
            device, kwargs = torch.device(kwargs["device"]), {**kwargs, "device": CPU}
        result = func(*args, **kwargs)
        return tree_map(_on if device.type == "cuda" else _off, result)


def _check(name, args, tensors, there):
    """Raise what PyTorch raises where devices are mixed; a CPU's single number may go along."""
    if name in ("numpy", "__array__") and there:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    if name == "__getitem__" and there and not isinstance(args[0], OnGpu):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    # What is changed in place stays where it is.
    changes = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
    if changes and there and name not in TAKE_BOTH and not isinstance(tensors[0], OnGpu):
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found cpu and cuda:0")
    if name == "__setitem__" and any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(args[1])):
        tensors = [args[0], *(leaf for leaf in tree_leaves(args[2:]) if isinstance(leaf, torch.Tensor))]
        name = "add"  # a number may come along, no more
    single = name.strip("_") in ELEMENTWISE or name.startswith(FUSED)
    if (
        name not in TAKE_BOTH
        and there
        and any(not isinstance(tensor, OnGpu) and (tensor.dim() or not single) for tensor in tensors)
    ):
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found cuda:0 and cpu")


def _move(name, tensor, *args, **kwargs):
    before = after = isinstance(tensor, OnGpu)
    result = tensor
    if name == "to":
        for asked in (*args, *kwargs.values()):
            if isinstance(asked, str | torch.device):
                after = torch.device(asked).type == "cuda"
            elif isinstance(asked, torch.Tensor):  # as another one
                after = isinstance(asked, OnGpu)
        args, kwargs = tree_map(lambda asked: CPU if isinstance(asked, str | torch.device) else asked, (args, kwargs))
        result = tensor.to(*args, **kwargs)
    else:
        after = name == "cuda"
    if result is tensor and before != after:
        result = tensor.clone()
    return result if result is tensor else (_on if after else _off)(result)


def _copy(tensor, memo):
    if id(tensor) not in memo:
        copied = tensor.detach().as_subclass(torch.Tensor).clone()
        if isinstance(tensor, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
        if isinstance(tensor, OnGpu):
            copied = _on(copied.detach()).requires_grad_(tensor.requires_grad)
            copied._is_param = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = copied
    return memo[id(tensor)]


def _on(result):
    return result.as_subclass(OnGpu) if isinstance(result, torch.Tensor) and not isinstance(result, OnGpu) else result


def _off(result):
    return result.as_subclass(torch.Tensor) if isinstance(result, OnGpu) else result


ATTRIBUTES = {
    torch.Tensor.device.__get__: lambda there: GPU if there else CPU,
    torch.Tensor.is_cuda.__get__: lambda there: there,
    torch.Tensor.is_cpu.__get__: lambda there: not there,
}
