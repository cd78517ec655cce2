"""Predict how single cells respond to perturbations, and judge it honestly."""

__version__ = '0.1.0'
