"""The arithmetic of SSD, independent of any model."""
