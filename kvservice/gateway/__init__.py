"""The RESP plane: client bytes to commands, replies to bytes."""
