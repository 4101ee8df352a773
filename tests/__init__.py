"""The tests of Heed, in rungs: unit, property, integration, end_to_end, bench; what they share is in support."""
