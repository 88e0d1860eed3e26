"""The command line, `readmodel …`: thin over the projector."""
