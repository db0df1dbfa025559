"""Benchmarks: Redan beside redis-server in one run, and a small measurement for each decision in docs."""
