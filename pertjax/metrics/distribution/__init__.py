"""Distances between sets of cells, each in its published meanings."""
