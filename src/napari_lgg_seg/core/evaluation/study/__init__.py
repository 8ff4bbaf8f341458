"""The original study's shape features of tumours, and their associations with genomic clusters."""
