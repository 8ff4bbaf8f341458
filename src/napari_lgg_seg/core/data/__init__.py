"""Patients and label maps on disk."""
