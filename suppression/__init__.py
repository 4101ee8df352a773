"""The promise: who may not be written to, known on every node within milliseconds, and provable afterwards.

Owns the digests that stand for addresses, the tokens that subscribers hold, the hash-chained suppression log with its
current state in PostgreSQL, the index of it in every worker, the watch that keeps the index current, the gate that
delivery asks last of all, and the subscriber's web pages. Imports only `config` and `metrics`.
"""
