"""Exact full-catalogue ranking and its metrics."""
