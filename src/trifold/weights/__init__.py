"""Weights: saved with their description, read from any library's files, named and laid out as each of them does."""

from trifold.weights.convert import COUNTER, exported, imported
from trifold.weights.files import RESERVED, header, load, save
from trifold.weights.layouts import LAYOUTS, names

__all__ = ["COUNTER", "LAYOUTS", "RESERVED", "exported", "header", "imported", "load", "names", "save"]
