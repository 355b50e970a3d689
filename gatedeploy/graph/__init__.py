"""A network as a graph of channels: capture, identities, operator rules."""
