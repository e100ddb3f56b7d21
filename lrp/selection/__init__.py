"""Selections decide which components stay; one file each, called with blocks, scores and a sparsity, returning masks."""

from lrp.selection.global_ import GlobalSelection
from lrp.selection.joint import JointSelection
from lrp.selection.lagrangian import LagrangianSelection
from lrp.selection.uniform import UniformSelection

__all__ = ["GlobalSelection", "JointSelection", "LagrangianSelection", "UniformSelection"]
