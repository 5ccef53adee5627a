"""PaddleOCR weights for PyTorch: download, convert, verify."""

__version__ = "0.1.0"
