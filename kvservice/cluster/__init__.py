"""Cluster life: how a node comes into a cluster, who belongs to it, and administration."""
