"""Speed and memory beside the usual way, a command each."""
