"""The server of a run: the page, answers for programs, and Label Studio's ML backend."""

HOST = "127.0.0.1"  # no other machine can reach it
