"""Metrics, comparison, reports, and the shape features of the original study."""
