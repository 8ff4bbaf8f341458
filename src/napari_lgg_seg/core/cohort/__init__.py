"""Segment the patients of a cohort, and store their results, statuses and corrections."""
