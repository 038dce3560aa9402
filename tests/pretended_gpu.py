"""A GPU that is none: tensors that call themselves ``cuda`` and refuse to meet those of the CPU, as a
GPU's do, while the CPU computes them.

Two modes see every call. One of functions answers what asks for or names a device; one of operations
marks what comes of marked tensors, so that views, gradients and buffers keep their place. A storage is
marked, not a tensor: a view of it is where it is. What a CPU's tensor and a GPU's may do together is
CUDA's: a copy, indices, and a number of no dimension beside a GPU's tensor.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.prompting.text import GROUP_FLOPS

CPU = torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# of a GPU's tensor they would read its memory as the CPU's
FOR_THE_CPU_ALONE = {torch.Tensor.numpy, torch.Tensor.__array__}


class Marks:
    """Which storages are the GPU's. A weak reference keeps a storage's address from being given to
    another one."""

    def __init__(self, device):
        self.device = device
        self.current = 0  # number of the GPU that is meant where none is said
        self.kept = {}
        self.is_inside = False  # a function of the GPU's tensors, which makes others beside them

    def are_of(self, device):
        """Whether a device is the GPU; another GPU is an error."""
        if torch.device(device).type != self.device.type:
            return False
        number = torch.device(device).index
        number = self.current if number is None else number
        if number != self.device.index:
            raise RuntimeError(f"{self.device.type}:{number} is asked for, not {self.device}")
        return True

    def has(self, tensor):
        return tensor.untyped_storage()._cdata in self.kept

    def add(self, tensor):
        storage = tensor.untyped_storage()
        self.kept[storage._cdata] = StorageWeakRef(storage)
        if len(self.kept) % 10_000 == 0:
            self.kept = {key: kept for key, kept in self.kept.items() if not kept.expired()}
        return tensor

    def remove(self, tensor):
        self.kept.pop(tensor.untyped_storage()._cdata, None)
        return tensor


def tensors_in(*parts):
    """Those of an operation's arguments or results; asked of each, a hundred thousand times a run."""
    found = []
    for part in parts:
        if isinstance(part, torch.Tensor):
            found.append(part)
        elif isinstance(part, list | tuple):
            found += tensors_in(*part)
        elif isinstance(part, dict):
            found += tensors_in(*part.values())
    return found


class Watched(TorchDispatchMode):
    """Sees every operation and changes none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def as_on_a_gpu():
    """Computes on the CPU as the pretended GPU does: texts are padded as there, and under a mode of
    operations, where PyTorch takes other paths."""
    with mock.patch.dict(GROUP_FLOPS, cpu=GROUP_FLOPS["cuda"]), Watched():
        yield


class Operations(TorchDispatchMode):
    """Marks the results of marked tensors, and refuses those that are in two places."""

    def __init__(self, marks):
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in(args, kwargs)
        marked = [tensor for tensor in given if self.marks.has(tensor)]
        if marked and func not in COPIES:
            # indices may be anywhere
            asked = tensors_in(args[0], args[2:]) if func in INDEXING else given
            others = [each for each in asked if not self.marks.has(each) and each.dim() > 0]
            if others or (func in INDEXING and not self.marks.has(args[0])):
                shapes = [tuple(each.shape) for each in others]
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but {func} got cuda's and "
                    f"cpu's, the latter of shapes {shapes}"
                )
        result = func(*args, **kwargs)
        is_moved_in_place = func is aten.copy_.default and not self.marks.has(args[0])
        is_made_inside = self.marks.is_inside and not given
        if (marked and not is_moved_in_place) or is_made_inside:
            for tensor in tensors_in(result):
                self.marks.add(tensor)
                self.refuse_float64(tensor)
        return result

    def refuse_float64(self, tensor):
        """As Apple's GPUs do."""
        if self.marks.device.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError(
                "the MPS framework doesn't support float64. Please use float32 instead."
            )


class Functions(TorchFunctionMode):
    """Answers where a tensor is, moves it, and makes it where that is asked for."""

    def __init__(self, marks):
        super().__init__()
        self.marks = marks

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        is_here = isinstance(first, torch.Tensor) and self.marks.has(first)
        if func == torch.Tensor.device.__get__:
            return self.marks.device if is_here else CPU
        if func == torch.Tensor.is_cuda.__get__:
            return is_here and self.marks.device.type == "cuda"
        if func == torch.Tensor.is_cpu.__get__:
            return not is_here
        if func in FOR_THE_CPU_ALONE and is_here:
            raise TypeError(f"can't convert cuda:0 device type tensor: {func.__name__}")
        if func is torch.Tensor.to:
            return self.moved(first, args[1:], kwargs)
        if func is torch.Tensor.cuda:
            return self.moved(first, [self.marks.device], {})
        if func is torch.Tensor.cpu:
            return self.moved(first, [CPU], {})
        if func is torch.Tensor.new_tensor and "device" not in kwargs:
            kwargs["device"] = self.marks.device if is_here else CPU
        wanted = kwargs.get("device")
        if wanted is None or not self.marks.are_of(wanted):
            before = self.marks.is_inside
            self.marks.is_inside = any(map(self.marks.has, tensors_in(args, kwargs)))
            try:
                return func(*args, **kwargs)
            finally:
                self.marks.is_inside = before
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        made = func(*args, **{**kwargs, "device": CPU})
        if any(
            made.untyped_storage()._cdata == of.untyped_storage()._cdata for of in tensors_in(args)
        ):
            made = made.clone()
        return self.marks.add(made)

    def moved(self, tensor, args, kwargs):
        """``tensor.to(…)``: a copy where its place changes."""
        target = None
        args = list(args)
        for number, value in enumerate(args):
            if isinstance(value, torch.Tensor):
                target = self.marks.device if self.marks.has(value) else CPU
                args[number] = value.dtype
            elif isinstance(value, str | torch.device):
                target = torch.device(value)
                args[number] = CPU
        if kwargs.get("device") is not None:
            target = torch.device(kwargs["device"])
            kwargs["device"] = CPU
        is_here = self.marks.has(tensor)
        result = tensor.to(*args, **kwargs)
        if target is None or self.marks.are_of(target) == is_here:
            return result
        copied = result.clone()
        return self.marks.remove(copied) if is_here else self.marks.add(copied)


@contextlib.contextmanager
def pretended_gpu(name="cuda:0"):
    """While it lasts, programs find a GPU: one of CUDA's, or Apple's, mps:0, which has no float64. Of several
    of CUDA's, the last is named; work on another one is an error."""
    marks = Marks(torch.device(name))
    has_cuda = marks.device.type == "cuda"
    autocast = torch.autocast

    def autocast_on_the_cpu(device_type, *args, **kwargs):
        return autocast("cpu", *args, **kwargs)

    def set_device(device):
        marks.current = device.index

    def pinned(tensor, device=None):
        """Copies, as a pinned tensor is one: a torch that is built for CUDA would ask the driver."""
        if marks.has(tensor):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors are")
        return tensor.clone()

    cuda = {
        "is_available": lambda: has_cuda,
        "is_initialized": lambda: has_cuda,
        "device_count": lambda: has_cuda * (marks.device.index + 1),
        "set_device": set_device,
        "get_device_name": lambda device=None: "pretended",
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device="cuda": None,
        "manual_seed_all": lambda seed: None,
    }
    with contextlib.ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", value))
        stack.enter_context(mock.patch("torch.autocast", autocast_on_the_cpu))
        stack.enter_context(mock.patch("torch.Tensor.pin_memory", pinned))
        stack.enter_context(mock.patch("torch.backends.cudnn.version", lambda: None))
        stack.enter_context(mock.patch("torch.backends.mps.is_available", lambda: not has_cuda))
        stack.enter_context(Functions(marks))
        stack.enter_context(Operations(marks))
        yield


@contextlib.contextmanager
def taken_gpu():
    """While it lasts, programs find a GPU that another one has for itself: opening it fails."""
    busy = RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
    with (
        mock.patch("torch.cuda.is_available", lambda: True),
        mock.patch("torch.cuda.device_count", lambda: 1),
        mock.patch("torch.cuda._lazy_init", side_effect=busy),
        mock.patch("torch.cuda.random._lazy_init", side_effect=busy),
    ):
        yield


@contextlib.contextmanager
def some_gpu() -> Iterator[str]:
    """While it lasts, programs find a GPU: the machine's own, or where torch sees none the pretended
    one. Yields its name."""
    if torch.cuda.is_available():
        yield torch.cuda.get_device_name()
        return
    with pretended_gpu():
        yield "a pretended GPU, whose times and memory are the CPU's"
