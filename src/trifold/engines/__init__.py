"""Exported files and networks run by the engines that users deploy, behind one call on NumPy arrays."""
