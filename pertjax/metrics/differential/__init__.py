"""Differential expression: tests of every condition against its control."""
