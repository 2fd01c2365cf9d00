"""What the comparisons call of llama.cpp, from its shared library, for packages that wrap it unlike llama-cpp-python.

Names and meanings are those of llama_cpp, so that one stands in for the other. Parameters are read and written where they
have been in every llama.cpp of the last years, which is checked against the defaults that they have; what lies behind is left
as it is.
"""

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path

llama_token = ctypes.c_int32
llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
POINTER = ctypes.c_void_p


class ModelParams(ctypes.Structure):
    """With room behind: parameters are passed by value, and the library takes what it knows of them."""

    _fields_ = [("all", ctypes.c_uint64 * 64)]


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 125),
    ]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), *((name, POINTER) for name in "token embd pos n_seq seq_id logits".split())]


FUNCTIONS = {
    "llama_backend_init": (None, []),
    "llama_batch_get_one": (Batch, [POINTER, ctypes.c_int32]),
    "llama_context_default_params": (ContextParams, []),
    "llama_decode": (ctypes.c_int32, [POINTER, Batch]),
    "llama_get_memory": (POINTER, [POINTER]),
    "llama_init_from_model": (POINTER, [POINTER, ContextParams]),
    "llama_log_set": (None, [llama_log_callback, POINTER]),
    "llama_memory_seq_rm": (ctypes.c_bool, [POINTER, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_model_load_from_file": (POINTER, [ctypes.c_char_p, ModelParams]),
    "llama_model_size": (ctypes.c_uint64, [POINTER]),
    "llama_print_system_info": (ctypes.c_char_p, []),
    "llama_set_n_threads": (None, [POINTER, ctypes.c_int32, ctypes.c_int32]),
    "llama_synchronize": (None, [POINTER]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [POINTER]),
}


class Library:
    """The functions by their names, of the library of xllamacpp.

    Raises ImportError when it is not installed, or its llama.cpp is one that this does not know.
    """

    llama_token = llama_token
    llama_log_callback = llama_log_callback
    package = "xllamacpp"

    def __init__(self):
        spec = importlib.util.find_spec(self.package)
        if spec is None:
            raise ImportError(f"neither llama_cpp nor {self.package} is installed")
        paths = list(Path(spec.origin).parent.glob(f"{self.package}*.so"))
        if not paths:
            raise ImportError(f"{spec.origin}: no shared library beside it")
        self.lib = ctypes.CDLL(str(paths[0]))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.lib, name, None)
            if function is None:
                raise ImportError(f"{paths[0]}: has no {name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        params = self.llama_context_default_params()
        if (params.n_ctx, params.n_batch, params.n_ubatch) != (512, 2048, 512):
            raise ImportError(f"{paths[0]}: parameters of a context are not where they were")
        self.__version__ = importlib.metadata.version(self.package)


def load():
    """llama_cpp where it is installed, else the same functions of another package."""
    try:
        import llama_cpp
    except ImportError:
        return Library()
    return llama_cpp
