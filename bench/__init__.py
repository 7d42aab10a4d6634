"""Benchmarks of the server against its peers. Run with `python -m bench`; results in `results/`."""
