"""Tests of the package evaluate."""
