"""Benchmarks: each module with a `BENCHMARK` measures us side by side with a peer."""
