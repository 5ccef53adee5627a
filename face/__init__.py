"""PaddleOCR weights for PyTorch: convert, prove, load, read.

    import paddle2torch as p2t

    converted = p2t.convert("ch_PP-OCRv3_rec")
    model = p2t.load_model("converted/ch_PP-OCRv3_rec.safetensors")

Importing this package imports nothing else; each name is fetched when it is first asked for, so that `--help` stays
quick and no module of the working folder can take the place of one that is needed here.
"""

import importlib

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` for it is not worth its time
if TYPE_CHECKING:
    from .api import Converted, convert, export, verify
    from .architectures import create_model, list_models, load_model, optimize
    from .reading import Line, Network, Reader

__all__ = [
    "Converted",
    "Line",
    "Network",
    "Reader",
    "convert",
    "create_model",
    "export",
    "list_models",
    "load_model",
    "optimize",
    "verify",
]

_HOMES = {
    "architectures": ("create_model", "list_models", "load_model", "optimize"),
    "api": ("Converted", "convert", "export", "verify"),
    "reading": ("Line", "Network", "Reader"),
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module(".converter", __name__).__version__
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
