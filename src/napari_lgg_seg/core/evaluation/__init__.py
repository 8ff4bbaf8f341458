"""Metrics, measurements, comparison of masks, reports, and the analyses of the original study."""
