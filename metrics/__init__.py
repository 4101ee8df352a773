"""What Heed counts and measures, each metric defined once, and the page that serves them. Imports nothing of ours."""
