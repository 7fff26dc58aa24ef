"""Unsupervised person re-identification with camera labels (ICSR, arXiv 2304.12634)."""

__version__ = "0.2.0"
