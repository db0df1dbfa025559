"""Any node serves: what a node that does not lead sends to the leader, and what the leader runs for others."""
