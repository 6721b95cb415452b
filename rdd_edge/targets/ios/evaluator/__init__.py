"""Computes a saved Core ML package where there is no Core ML: from the file alone, rounding as float16 does.

    package.py      the saved program and its weights, checked and then read by coremltools
    operators.py    the operators, in float32
    evaluate.py     the run, with every result rounded to its declared type and its largest magnitude kept

It answers what a package computes and where float16 overflows. It says nothing about time.
"""

from __future__ import annotations

from .evaluate import Evaluator, Run, type_of
from .package import read_package

__all__ = ["Evaluator", "Run", "read_package", "type_of"]
