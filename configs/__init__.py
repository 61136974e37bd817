"""Typed configuration, the types that packages exchange, and the one error a user sees."""
