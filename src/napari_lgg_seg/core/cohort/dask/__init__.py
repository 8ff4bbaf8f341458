"""A run spread over processes or machines with dask."""
