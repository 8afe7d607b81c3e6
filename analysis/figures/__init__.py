"""Figures: those of any sweep, and the paper's six."""

from analysis.figures.drawing import Drawing
from analysis.figures.sweep import OVERVIEW, draw, overview

__all__ = ["OVERVIEW", "Drawing", "draw", "overview"]
