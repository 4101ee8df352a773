"""The mail daemon: submission, queue, workers, delivery, signing, routing, sessions, supervisor and command line."""
