"""The arithmetic of SSD. It knows no model by name."""
