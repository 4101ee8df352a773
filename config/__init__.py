"""Settings, keys, the database and its schema: what every part of the daemon stands on. Imports nothing of ours."""
