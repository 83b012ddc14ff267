"""Labelled images from folders and built-in sets: scanned, split, decoded, augmented. Knows no networks."""
