"""The Cohort widget: a table of patients."""
