"""How fast oompa is, beside its peers: run ``python -m tests.benchmarks`` from the root of the repository."""
