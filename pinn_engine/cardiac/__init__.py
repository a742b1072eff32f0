"""The heart: the Aliev-Panfilov model on rectangles and heart meshes, forward and inverse."""
